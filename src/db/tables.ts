import type { JobTables } from '@offloop/jobs/tables'

/**
 * The tables of the database, one entry each, as `migrations/` creates them. A feature adds its own
 * by declaration merging, so that deleting the feature's folder deletes them:
 *
 *     declare module '../../db/tables.ts' {
 *       interface Tables {
 *         product: ProductTable
 *       }
 *     }
 */
export interface Tables extends JobTables {}
