import { type Kysely, sql } from 'kysely'

/**
 * Who may call: accounts of people, and their credentials, which are sessions and API keys.
 *
 * - `email` is lower case and ASCII, so that no two addresses look alike.
 * - `token_hash` is the SHA-256 of a random token of 256 bits: a copy of the table opens nothing.
 * - `expires_at` of a session moves with its use; keys without one never expire.
 * - `scopes` is null for sessions, which may do what the account's role may.
 * - `subject` of a job is who enqueued it; null for schedules.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table account (
      id            int unsigned not null auto_increment primary key,
      email         varchar(254) character set ascii collate ascii_bin not null,
      password_hash varchar(200) character set ascii collate ascii_bin,
      role          varchar(20)  character set ascii collate ascii_bin not null,
      created_at    datetime(3)  not null default current_timestamp(3),
      unique key account_email (email)
    ) engine = InnoDB, character set = utf8mb4, collate = utf8mb4_unicode_520_ci
  `.execute(db)

  await sql`
    create table credential (
      id         char(36)     character set ascii collate ascii_bin not null primary key,
      kind       enum('session', 'key') not null,
      token_hash char(43)     character set ascii collate ascii_bin not null,
      account_id int unsigned not null,
      name       varchar(200) not null,
      scopes     varchar(1000) character set ascii collate ascii_bin,
      address    varchar(45)  character set ascii collate ascii_bin,
      created_at datetime(3)  not null default current_timestamp(3),
      used_at    datetime(3)  not null default current_timestamp(3),
      expires_at datetime(3),
      unique key credential_token (token_hash),
      key credential_account (account_id, kind, id),
      key credential_expiry (expires_at),
      constraint credential_account foreign key (account_id) references account (id)
        on delete cascade
    ) engine = InnoDB, character set = utf8mb4, collate = utf8mb4_unicode_520_ci
  `.execute(db)

  await sql`
    alter table job add column subject varchar(64) character set ascii collate ascii_bin
      after request_id
  `.execute(db)
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`alter table job drop column subject`.execute(db)
  await sql`drop table credential`.execute(db)
  await sql`drop table account`.execute(db)
}
