import { type Kysely, sql } from 'kysely'

/**
 * What lists of jobs filter by, each newest first: by state, by kind and state, by the request that
 * enqueued them, and by dedupe key, whose columns change places for that. A slot knows the job that
 * it enqueued; one that fired before does not, nor does a new schedule's first.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    alter table job
      add key job_state (state, id),
      drop key job_kind,
      add key job_kind (kind, state, id),
      add key job_request (request_id, id),
      drop key job_dedupe,
      add unique key job_dedupe (dedupe_key, kind)
  `.execute(db)
  await sql`
    alter table job_slot add column job_id char(36) character set ascii collate ascii_bin
  `.execute(db)
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`alter table job_slot drop column job_id`.execute(db)
  await sql`
    alter table job
      drop key job_state,
      drop key job_kind,
      add key job_kind (kind, id),
      drop key job_request,
      drop key job_dedupe,
      add unique key job_dedupe (kind, dedupe_key)
  `.execute(db)
}
