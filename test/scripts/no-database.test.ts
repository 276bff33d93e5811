import { expect, test } from 'vitest'
import { noDatabase } from '../../scripts/database/no-database.ts'

const URL_LINE = 'export DATABASE_URL=mysql://user:password@host:3306/offloop'

/** The lines to copy, without what they say of themselves. */
const linesOf = (...parameters: Parameters<typeof noDatabase>) =>
  noDatabase(...parameters)
    .message.match(/^ {2}.*?(?= {3}#)/gm)
    ?.map((line) => line.trim())

test('without a database there are lines to copy, for the machine at hand', () => {
  const install = 'sudo apt-get install mariadb-server-core mariadb-client-core'
  expect(linesOf({ platform: 'linux', dockerRefuses: false })).toEqual([install, URL_LINE])
  expect(linesOf({ platform: 'darwin', dockerRefuses: false })).toEqual(['brew install mariadb', URL_LINE])
})

test('where Docker refuses this user, the first line says how to be let in', () => {
  expect(linesOf({ dockerRefuses: true })?.[0]).toBe('sudo usermod -aG docker $USER && newgrp docker')
})
