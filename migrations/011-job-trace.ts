import { type Kysely, sql } from 'kysely'

/** The W3C traceparent of the request that enqueued the job, if that was sampled. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    alter table job add column trace varchar(55) character set ascii collate ascii_bin
  `.execute(db)
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`alter table job drop column trace`.execute(db)
}
