import { type Kysely, sql } from 'kysely'

/**
 * A row for each process that runs, renewed by itself: `seen_at` is the database's clock, so that
 * one who reads needs no other. A clean stop deletes the row.
 *
 * - `sample` is JSON in plain text, because MySQL and MariaDB differ in what a JSON column gives
 * back; null until the first second has passed.
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
