import { type Kysely, sql } from 'kysely'

/**
 * Reports: each is a job with an upload, so that state, progress, error and result are the job's,
 * and go with it.
 *
 * - `upload` names the file in the storage; null once it was removed.
 * - `sha256` and the columns asked for tell whether an earlier result can be used again.
 * - `idempotency_key` is unique, which decides between two that race.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table report (
      id              char(36)        character set ascii collate ascii_bin not null primary key,
      upload          char(36)        character set ascii collate ascii_bin,
      bytes           bigint unsigned not null,
      sha256          char(64)        character set ascii collate ascii_bin not null,
      group_by        varchar(200),
      value_column    varchar(200),
      idempotency_key varchar(200)    character set ascii collate ascii_bin,
      created_at      datetime(3)     not null default current_timestamp(3),
      key report_upload (upload, created_at),
      key report_sha256 (sha256),
      unique key report_idempotency_key (idempotency_key),
      constraint report_job foreign key (id) references job (id) on delete cascade
    ) engine = InnoDB, character set = utf8mb4, collate = utf8mb4_bin
  `.execute(db)
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`drop table report`.execute(db)
}
