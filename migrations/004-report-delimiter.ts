import { type Kysely, sql } from 'kysely'

/** The delimiter that was asked for: a result can be used again only for the same one. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`alter table report add column delimiter char(1) character set ascii collate ascii_bin`.execute(
    db,
  )
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`alter table report drop column delimiter`.execute(db)
}
