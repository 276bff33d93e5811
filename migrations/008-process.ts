import { type Kysely, sql } from 'kysely'

/**
 * A row for each process that runs, renewed by itself at the database's time and deleted by a clean
 * stop.
 *
 * - `sample` is JSON as text, because MySQL and MariaDB return JSON columns differently; null in the
 * first second.
 * - `process_seen` serves the pruning of those that were killed.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table process (
      id         varchar(100)  character set ascii collate ascii_bin not null primary key,
      role       enum('all', 'web', 'worker') not null,
      node       varchar(50)   character set ascii collate ascii_bin not null,
      url        varchar(200)  character set ascii collate ascii_bin,
      started_at datetime(3)   not null,
      seen_at    datetime(3)   not null,
      sample     varchar(1000) character set ascii collate ascii_bin,
      key process_seen (seen_at)
    ) engine = InnoDB
  `.execute(db)
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`drop table process`.execute(db)
}
