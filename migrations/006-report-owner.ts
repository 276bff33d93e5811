import { type Kysely, sql } from 'kysely'

/**
 * Whose a report is: lists, Idempotency-Keys and earlier results are each owner's own. Reports from
 * before there were owners have none, and only operators see them.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    alter table report
      add column owner varchar(64) character set ascii collate ascii_bin,
      add key report_owner (owner, id),
      drop key report_sha256,
      add key report_sha256 (sha256, owner),
      drop key report_idempotency_key,
      add unique key report_idempotency_key (idempotency_key, owner)
  `.execute(db)
}

export async function down(db: Kysely<unknown>): Promise<void> {
  // Two owners may have used the same one.
  await sql`update report set idempotency_key = null`.execute(db)
  await sql`
    alter table report
      drop key report_owner,
      drop key report_sha256,
      add key report_sha256 (sha256),
      drop key report_idempotency_key,
      add unique key report_idempotency_key (idempotency_key),
      drop column owner
  `.execute(db)
}
