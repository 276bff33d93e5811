import { describe, expect, test } from 'vitest'
import { allowsChange, bodyTag, isFresh, versionTag } from '../../src/http/etag.ts'

describe('a tag', () => {
  test('is quoted and strong', () => {
    expect(versionTag(7)).toBe('"7"')
    expect(bodyTag('[]')).toMatch(/^"[\w-]{27}"$/)
  })

  test('of a body is the same for the same body only', () => {
    expect(bodyTag('{"stock":1}')).toBe(bodyTag('{"stock":1}'))
    expect(bodyTag('{"stock":1}')).not.toBe(bodyTag('{"stock":2}'))
  })
})

describe('If-Match', () => {
  test.each([
    ['is absent', undefined],
    ['takes any version', '*'],
    ['takes any version, with blanks', ' * '],
    ['names this one', '"2"'],
    ['names this one among others', '"1", "2","3"'],
    ['names this one after one that has a comma in it', '"a, b", "2"'],
  ])('lets a change pass when it %s', (_, ifMatch) => {
    expect(allowsChange(ifMatch, '"2"')).toBe(true)
  })

  test.each([
    ['names another one', '"1"'],
    ['names only a part of it', '"22"'],
    ['names it weakly, which is not enough for a change', 'W/"2"'],
    ['names it within another tag', '"1, "'],
    ['does not quote it', '2'],
    ['is empty', ''],
  ])('rejects a change when it %s', (_, ifMatch) => {
    expect(allowsChange(ifMatch, '"2"')).toBe(false)
  })
})

describe('If-None-Match', () => {
  test.each([
    ['takes any version', '*'],
    ['names this one', '"2"'],
    ['names this one weakly, which is enough for a read', 'W/"2"'],
    ['names this one among others', '"1", W/"2"'],
  ])('says that the client has it when it %s', (_, ifNoneMatch) => {
    expect(isFresh(ifNoneMatch, '"2"')).toBe(true)
  })

  test.each([
    ['is absent', undefined],
    ['is empty', ''],
    ['names another one', '"1"'],
    ['does not quote it', '2'],
  ])('does not when it %s', (_, ifNoneMatch) => {
    expect(isFresh(ifNoneMatch, '"2"')).toBe(false)
  })
})
