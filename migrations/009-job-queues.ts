import { type Kysely, sql } from 'kysely'

/**
 * - `queue` is that of the job's kind when it was enqueued; where it runs is for its declaration to
 * say.
 * - `job_queue` has a range for each kind, and in that for each key, in the order of claims.
 * - `on_failed` is set by the claim, because whoever finds the failure may lack the handler.
 * - `job_queue_state` says when a process last ran a queue, and since when it is paused.
 * - `job_limit` is locked by claims within limits. What runs is counted in `job`, so that it cannot
 * drift; only turns and recent starts are stored.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    alter table job
      add column queue varchar(100) character set ascii collate ascii_bin not null default 'default',
      add column limit_key varchar(100) character set ascii collate ascii_bin not null default '',
      add column on_failed boolean not null default false,
      drop key job_queue,
      add key job_queue (state, kind, limit_key, priority, id)
  `.execute(db)
  await sql`
    create table job_queue_state (
      queue     varchar(100) character set ascii collate ascii_bin not null primary key,
      run_at    datetime(3),
      paused_at datetime(3)
    ) engine = InnoDB
  `.execute(db)
  await sql`
    create table job_limit (
      kind     varchar(100)  character set ascii collate ascii_bin not null primary key,
      last_key varchar(100)  character set ascii collate ascii_bin not null default '',
      starts   varchar(1000) character set ascii collate ascii_bin not null default '[]'
    ) engine = InnoDB
  `.execute(db)
}

export async function down(db: Kysely<unknown>): Promise<void> {
  for (const table of ['job_limit', 'job_queue_state'])
    await sql`drop table ${sql.table(table)}`.execute(db)
  await sql`
    alter table job
      drop key job_queue,
      add key job_queue (state, priority, id),
      drop column on_failed,
      drop column limit_key,
      drop column queue
  `.execute(db)
}
