#!/bin/sh
# Runs nginx with all containers of the service `web` as its upstream. Open-source nginx follows DNS by itself only since
# 1.27.3 (`resolve`), so this reloads it when there is a new one. One that is gone, nginx passes over: a reload closes
# idle connections of clients, some of which may just be sending.
set -eu
mkdir -p /tmp/nginx
upstream=/tmp/nginx/upstream.conf
touch $upstream

# Whether there are new ones.
write_upstream() {
  servers=$(getent ahostsv4 web | cut -d ' ' -f 1 | sort -u)
  has_new=false
  for server in $servers; do grep -qF "server $server:" $upstream || has_new=true; done
  $has_new || return 1
  {
    echo 'upstream web {'
    echo '  zone web 128k;'
    echo '  least_conn;'
    for server in $servers; do echo "  server $server:$WEB_PORT max_fails=1 fail_timeout=5s;"; done
    # Shorter than the service keeps them.
    echo '  keepalive 64;'
    echo '  keepalive_timeout 30s;'
    echo '}'
  } >$upstream
}

until write_upstream; do sleep 1; done
while sleep 1; do
  if write_upstream; then nginx -e stderr -c /etc/nginx/offloop.conf -s reload || true; fi
done &
exec nginx -e stderr -c /etc/nginx/offloop.conf -g 'daemon off;'
