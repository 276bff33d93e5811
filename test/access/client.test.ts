import type { IncomingHttpHeaders } from 'node:http'
import type { Socket } from 'node:net'
import { describe, expect, test } from 'vitest'
import { clientFinder, type ProxyTrust, toNetwork } from '../../src/access/client.ts'

describe('the address of a client', () => {
  test('is the one of its socket, whatever its headers claim', () => {
    const claims = { 'x-forwarded-for': '203.0.113.9', forwarded: 'for=203.0.113.9' }
    expect(find({ proxies: 0 }, '192.0.2.1', claims)).toBe('192.0.2.1')
    expect(find({ proxies: ['10.0.0.0/8'] }, '192.0.2.1', claims)).toBe('192.0.2.1')
  })

  test('has one form on sockets of both families', () => {
    expect(find({ proxies: 0 }, '::ffff:192.0.2.1')).toBe('192.0.2.1')
  })

  test.each([
    [1, '203.0.113.9'],
    [2, '198.51.100.7'],
    [9, '192.0.2.200'],
  ])('is what %i proxies have added, from the right', (proxies, client) => {
    const chain = { 'x-forwarded-for': '192.0.2.200, 198.51.100.7 ,203.0.113.9' }
    expect(find({ proxies }, '10.0.0.1', chain)).toBe(client)
  })

  test('is the last one that is in no trusted network', () => {
    const trust = { proxies: ['10.0.0.0/8', 'fd00::/8'] }
    const chain = { 'x-forwarded-for': '10.6.6.6, 203.0.113.9, 10.0.0.2, fd00::3' }
    expect(find(trust, '10.0.0.1', chain)).toBe('203.0.113.9')
    expect(find(trust, '::ffff:10.0.0.1', chain)).toBe('203.0.113.9')
  })

  test.each(['unknown', '', ',', '_hidden', '999.1.1.1', '1', 'example.com', '__proto__'])(
    'is the proxy where it says nothing of use: %j',
    (text) => {
      expect(find({ proxies: 1 }, '10.0.0.1', { 'x-forwarded-for': text })).toBe('10.0.0.1')
    },
  )

  test.each([
    ['203.0.113.9:4711', '203.0.113.9'],
    ['[2001:DB8::1]:4711', '2001:db8::1'],
    ['2001:db8:0:0::1', '2001:db8::1'],
    ['::ffff:203.0.113.9', '203.0.113.9'],
  ])('has no port and one spelling: %s', (text, client) => {
    expect(find({ proxies: 1 }, '10.0.0.1', { 'x-forwarded-for': text })).toBe(client)
  })

  test.each([
    ['for=203.0.113.9', '203.0.113.9'],
    ['for=198.51.100.7, for=203.0.113.9;proto=https;by=10.0.0.1', '203.0.113.9'],
    ['proto=https; For="[2001:db8::1]:4711"', '2001:db8::1'],
    // Without its end, a client's quote does not swallow what the proxy adds.
    ['for="198.51.100.7, for=203.0.113.9', '203.0.113.9'],
    ['for=_hidden', '10.0.0.1'],
  ])('comes from `Forwarded` where that is the header of the proxies: %s', (forwarded, client) => {
    const trust = { proxies: 1, header: 'forwarded' } as const
    const others = { 'x-forwarded-for': '192.0.2.66' }
    expect(find(trust, '10.0.0.1', { forwarded, ...others })).toBe(client)
    expect(find({ proxies: 1 }, '10.0.0.1', { forwarded, ...others })).toBe('192.0.2.66')
  })

  test('is empty once the socket is gone', () => {
    expect(find({ proxies: ['10.0.0.0/8'] }, undefined, { 'x-forwarded-for': '1.1.1.1' })).toBe('')
  })
})

test('limits count an IPv4 address by itself, and one of IPv6 with the network around it', () => {
  expect(toNetwork('192.0.2.1')).toBe('192.0.2.1')
  expect(toNetwork('2001:db8:1:2:3:4:5:6')).toBe('2001:db8:1:2::/64')
  expect(toNetwork('2001:db8:1:2::9')).toBe('2001:db8:1:2::/64')
  expect(toNetwork('2001:db8::1')).toBe('2001:db8:0:0::/64')
  expect(toNetwork('::1')).toBe('0:0:0:0::/64')
  expect(toNetwork('fe80::1%eth0')).toBe('fe80:0:0:0::/64')
})

function find(
  trust: Partial<ProxyTrust>,
  remoteAddress: string | undefined,
  headers: IncomingHttpHeaders = {},
) {
  const findClient = clientFinder({ proxies: 0, header: 'x-forwarded-for', ...trust })
  return findClient({ headers, socket: { remoteAddress } as Socket })
}
