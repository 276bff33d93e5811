# offloop's image: Node, the production packages and the sources; Node runs the TypeScript as it is, so nothing is built.
# It needs DATABASE_URL and nothing else: .env.example lists what it takes. `docker compose up --build` has it all.

FROM node:26-slim AS base
WORKDIR /app

# What npm installs for production, without its optional packages of Node itself, which are for machines with an older one.
FROM base AS packages
COPY package.json package-lock.json ./
COPY packages packages
RUN --mount=type=cache,target=/root/.npm npm ci --omit=dev --ignore-scripts --no-audit --no-fund \
  && rm -rf node_modules/node-linux-* node_modules/node-bin-* node_modules/.bin/node
# feature: reports
# DuckDB's library for this platform is an optional package, too.
RUN node --eval "require('@duckdb/node-api')"
# /feature

FROM base
# Node is no good PID 1: it leaves orphans as zombies, and a signal that it has no handler for yet is lost. tini reaps,
# passes SIGTERM on, and exits with Node's exit code.
RUN apt-get update && apt-get install -y --no-install-recommends tini && rm -rf /var/lib/apt/lists/* /var/cache/apt/*

# feature: reports
# Uploads and what their reports put on disk; a volume mounted here takes over its owner.
RUN install --directory --owner=1000 --group=1000 /data/reports
ENV REPORT_DIR=/data/reports
# /feature

COPY --from=packages /app/node_modules node_modules
COPY package.json ./
COPY bin bin
COPY public public
COPY migrations migrations
COPY packages packages
COPY scripts scripts
COPY src src

ENV NODE_ENV=production HOST=0.0.0.0 PORT=3000 OPS_HOST=0.0.0.0 OPS_PORT=9464
EXPOSE 3000 9464
# The base image's user `node`, who owns nothing in /app; as a number, by which Kubernetes can tell it is not root.
USER 1000:1000
# On the port that answers even while the event loop is blocked, and then says for how long.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.OPS_PORT}/health/live`).then(({ ok }) => process.exit(ok ? 0 : 1))"]
ENTRYPOINT ["tini", "--"]
CMD ["bin/node", "src/main.ts"]
