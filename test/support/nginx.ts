import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { findFreePort } from '../../scripts/database/private-server.ts'
import { until } from './until.ts'

export const hasNginx = spawnSync('nginx', ['-v']).status === 0

/** An nginx that sends each request to one of `servers`, and to no other when that fails. */
export async function useNginx(servers: string[]) {
  const folder = await mkdtemp(join(tmpdir(), 'offloop-nginx-'))
  const file = join(folder, 'nginx.conf')
  const port = await findFreePort()
  const write = (urls: string[]) => writeFile(file, configure(folder, port, urls))
  await write(servers)
  const child = spawn('nginx', ['-p', folder, '-c', file, '-e', join(folder, 'error.log')])
  onTestFinished(() => end(child, folder))
  const url = `http://127.0.0.1:${port}`
  await until(() => fetch(url).then(Boolean, () => false), 'nginx listens')
  return {
    url,
    /** From here on, requests go to these. */
    async lead(urls: string[]) {
      await write(urls)
      child.kill('SIGHUP')
    },
  }
}

const configure = (folder: string, port: number, urls: string[]) => `
daemon off;
pid ${folder}/nginx.pid;
events { worker_connections 512; }
http {
  access_log off;
  ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `${name}_temp_path ${folder}/${name};`)
    .join('\n  ')}
  upstream offloop {
    ${urls.map((url) => `server 127.0.0.1:${new URL(url).port} max_fails=0;`).join('\n    ')}
    keepalive 32;
  }
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass http://offloop;
      proxy_next_upstream off;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection '';
    }
  }
}
`

async function end(child: ChildProcess, folder: string) {
  const exited = once(child, 'exit')
  child.kill('SIGTERM')
  await exited
  await rm(folder, { recursive: true })
}
