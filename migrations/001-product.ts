import { type Kysely, sql } from 'kysely'

/**
 * Products: the plain CRUD example.
 *
 * - `name` is unique in a collation that MySQL and MariaDB share and that ignores case and accents.
 * - `version` counts up with each change: it is the ETag, and the guard against lost updates.
 * - The primary key is the order of the list, so that a page is one range read.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table product (
      id         int unsigned   not null auto_increment primary key,
      name       varchar(200)   not null,
      price      decimal(12, 2) not null,
      stock      int unsigned   not null,
      version    int unsigned   not null default 1,
      created_at timestamp(3)   not null default current_timestamp(3),
      updated_at timestamp(3)   not null default current_timestamp(3) on update current_timestamp(3),
      unique key product_name (name)
    ) engine = InnoDB, character set = utf8mb4, collate = utf8mb4_unicode_520_ci
  `.execute(db)
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`drop table product`.execute(db)
}
