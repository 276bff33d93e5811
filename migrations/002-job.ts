import { type Kysely, sql } from 'kysely'

/**
 * Durable jobs: the rows are the truth, whatever delivers them.
 *
 * - `id` is a UUIDv7 of the client's: known before the insert, in the order of time, and nobody
 * guesses it.
 * - `job_queue` is the order in which queued jobs are claimed, so that a claim reads the rows that
 * it takes and sorts none.
 * - `due_at` says when the row's state asks for something: a scheduled job is to be queued, the
 * lease of a running one
 *   runs out, a finished one is to be pruned. Queued jobs have none. One index, `job_due`, serves all three.
 * - `fence` counts the claims; a worker that names an older one writes nothing. `attempt` counts
 * them, too, but begins
 *   again when an operator retries the job, and a claim that was given back does not count.
 * - `dedupe_key` is unique among the unfinished jobs of a kind: finished ones have none.
 * - `input` and `result` are JSON in plain text, because MySQL and MariaDB differ in what a JSON
 * column gives back.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table job (
      id           char(36)          character set ascii collate ascii_bin not null primary key,
      kind         varchar(100)      character set ascii collate ascii_bin not null,
      state        enum('scheduled', 'queued', 'running', 'succeeded', 'failed', 'cancelled') not null,
      priority     smallint          not null,
      due_at       datetime(3),
      attempt      smallint unsigned not null default 0,
      max_attempts smallint unsigned not null,
      fence        int unsigned      not null default 0,
      worker       varchar(100)      character set ascii collate ascii_bin,
      dedupe_key   varchar(200)      collate utf8mb4_bin,
      request_id   varchar(128)      character set ascii collate ascii_bin,
      input        mediumtext        not null,
      result       mediumtext,
      error        varchar(1000),
      progress     double            not null default 0,
      note         varchar(200),
      created_at   datetime(3)       not null default current_timestamp(3),
      started_at   datetime(3),
      finished_at  datetime(3),
      key job_queue (state, priority, id),
      key job_due (state, due_at),
      key job_kind (kind, id),
      unique key job_dedupe (kind, dedupe_key)
    ) engine = InnoDB, character set = utf8mb4, collate = utf8mb4_unicode_520_ci
  `.execute(db)

  // The history: a row for each claim. Only the newest of a job may lack an outcome, and only while
  // the job runs.
  await sql`
    create table job_attempt (
      job_id      char(36)          character set ascii collate ascii_bin not null,
      fence       int unsigned      not null,
      attempt     smallint unsigned not null,
      worker      varchar(100)      character set ascii collate ascii_bin not null,
      started_at  datetime(3)       not null default current_timestamp(3),
      finished_at datetime(3),
      outcome     enum('succeeded', 'failed', 'cancelled', 'lost', 'released'),
      error       varchar(4000),
      primary key (job_id, fence),
      constraint job_attempt_job foreign key (job_id) references job (id) on delete cascade
    ) engine = InnoDB, character set = utf8mb4, collate = utf8mb4_unicode_520_ci
  `.execute(db)

  // One row for each slot of a cron schedule that was fired: the key is what keeps two processes
  // from firing it twice.
  await sql`
    create table job_slot (
      schedule varchar(100) character set ascii collate ascii_bin not null,
      slot     datetime     not null,
      primary key (schedule, slot)
    ) engine = InnoDB
  `.execute(db)
}

export async function down(db: Kysely<unknown>): Promise<void> {
  for (const table of ['job_slot', 'job_attempt', 'job'])
    await sql`drop table ${sql.table(table)}`.execute(db)
}
