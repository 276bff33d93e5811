import type { Db } from '../../db/database.ts'

const COUNT = 1_000
const ADJECTIVES = 'Plain Copper Folding Quiet Heavy Glass Compact Woven Bright Solid'.split(' ')
const NOUNS = 'kettle lamp chair desk clock shelf bottle basket mirror rug'.split(' ')

/** Fills an empty table with the same products each time; returns their number. */
export async function seedProducts(db: Db): Promise<number> {
  if (await db.selectFrom('product').select('id').limit(1).executeTakeFirst()) return 0
  const examples = Array.from({ length: COUNT }, (_, index) => ({
    name: `${ADJECTIVES[index % 10]} ${NOUNS[Math.floor(index / 10) % 10]} no. ${index + 1}`,
    price: (((index * 37) % 20_000) / 100 + 5).toFixed(2),
    stock: (index * 13) % 250,
  }))
  await db.insertInto('product').values(examples).execute()
  return COUNT
}
