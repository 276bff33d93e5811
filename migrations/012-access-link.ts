import { type Kysely, sql } from 'kysely'

/** The token of a sign-in link, which is good for any process, once. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    alter table credential modify kind enum('session', 'key', 'link') not null
  `.execute(db)
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`delete from credential where kind = 'link'`.execute(db)
  await sql`alter table credential modify kind enum('session', 'key') not null`.execute(db)
}
