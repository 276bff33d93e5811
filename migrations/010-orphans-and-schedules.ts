import { type Kysely, sql } from 'kysely'

/**
 * - `parked`: queued jobs of a kind that no process has handled for a day wait there.
 * - `job_kind` has when a process with a handler last ran, or a kind without one was first seen.
 * - `job_schedule` has the schedules that somebody paused. Slots up to `resumed_at` are left out.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    alter table job modify state enum(
      'scheduled', 'queued', 'running', 'succeeded', 'failed', 'cancelled', 'parked'
    ) not null
  `.execute(db)
  await sql`
    create table job_kind (
      kind       varchar(100) character set ascii collate ascii_bin not null primary key,
      handled_at datetime(3)  not null
    ) engine = InnoDB
  `.execute(db)
  await sql`
    create table job_schedule (
      schedule   varchar(100) character set ascii collate ascii_bin not null primary key,
      is_paused  boolean      not null,
      resumed_at datetime(3)
    ) engine = InnoDB
  `.execute(db)
}

export async function down(db: Kysely<unknown>): Promise<void> {
  for (const table of ['job_schedule', 'job_kind'])
    await sql`drop table ${sql.table(table)}`.execute(db)
  await sql`update job set state = 'queued' where state = 'parked'`.execute(db)
  await sql`
    alter table job modify state enum(
      'scheduled', 'queued', 'running', 'succeeded', 'failed', 'cancelled'
    ) not null
  `.execute(db)
}
