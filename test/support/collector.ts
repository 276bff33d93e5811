import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { json } from 'node:stream/consumers'
import { onTestFinished } from 'vitest'

export interface CollectedSpan {
  service: string
  traceId: string
  spanId: string
  parentSpanId: string | undefined
  name: string
  startedAt: number
  endedAt: number
  failed: boolean
  attributes: Record<string, unknown>
  links: { traceId: string; spanId: string }[]
}

type Attributes = { key: string; value: Record<string, unknown> }[]

interface OtlpSpan {
  traceId: string
  spanId: string
  parentSpanId?: string
  name: string
  startTimeUnixNano: string
  endTimeUnixNano: string
  attributes: Attributes
  links?: { traceId: string; spanId: string }[]
  status?: { code?: number }
}

interface OtlpRequest {
  resourceSpans: { resource: { attributes: Attributes }; scopeSpans: { spans: OtlpSpan[] }[] }[]
}

/** A collector of OpenTelemetry's, over HTTP with JSON, that keeps what it gets. */
export async function useCollector() {
  const spans: CollectedSpan[] = []
  const url = await useCollectorThat(async (request, response) => {
    if (request.url !== '/v1/traces') return void response.writeHead(404).end()
    spans.push(...toSpans((await json(request)) as OtlpRequest))
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}')
  })
  const find = (name: string) => spans.find((span) => span.name === name)
  return {
    url,
    spans,
    find,
    /** The names below a span, as lines that are indented, in the order in which they began. */
    tree(root: CollectedSpan): string[] {
      const children = spans
        .filter(
          ({ traceId, parentSpanId }) => traceId === root.traceId && parentSpanId === root.spanId,
        )
        .sort((one, other) => one.startedAt - other.startedAt)
      return [
        root.name,
        ...children.flatMap((child) => this.tree(child).map((line) => `  ${line}`)),
      ]
    },
  }
}

/** A server in a collector's place that does as it likes; returns its URL. */
export async function useCollectorThat(listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.close()
    server.closeAllConnections()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

const toSpans = ({ resourceSpans }: OtlpRequest) =>
  resourceSpans.flatMap(({ resource, scopeSpans }) =>
    scopeSpans.flatMap(({ spans }) =>
      spans.map(
        (span): CollectedSpan => ({
          service: String(toRecord(resource.attributes)['service.name']),
          traceId: span.traceId,
          spanId: span.spanId,
          parentSpanId: span.parentSpanId || undefined,
          name: span.name,
          startedAt: Number(span.startTimeUnixNano) / 1e6,
          endedAt: Number(span.endTimeUnixNano) / 1e6,
          failed: span.status?.code === 2,
          attributes: toRecord(span.attributes),
          links: (span.links ?? []).map(({ traceId, spanId }) => ({ traceId, spanId })),
        }),
      ),
    ),
  )

const toRecord = (attributes: Attributes) =>
  Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]))
