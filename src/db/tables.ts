import type { JobTables } from '@offloop/jobs/tables'

/**
 * A feature adds its tables by declaration merging, so that they are deleted with its folder:
 *
 *     declare module '../../db/tables.ts' {
 *       interface Tables {
 *         order: OrderTable
 *       }
 *     }
 */
export interface Tables extends JobTables {}
