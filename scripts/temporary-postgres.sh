# Sourced by scripts that need an empty Postgres while they run: starts a Postgres on a Unix socket,
# in the new directory $work, and applies the migrations. The Postgres stops when the script ends.
#
# Usage: postgres_options=OPTIONS; . scripts/temporary-postgres.sh

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$bin" ] || bin=$(dirname "$(command -v initdb)")
work=$(mktemp -d /tmp/tenantry-postgres.XXXXXX)
mkdir "$work/data"

# Postgres refuses to run as root.
as_postgres() { "$@"; }
if [ "$(id -u)" = 0 ]; then
    owner=postgres
    id "$owner" >/dev/null 2>&1 || owner=nobody
    chown -R "$owner" "$work"
    chmod 711 "$work"
    as_postgres() { setpriv --reuid "$owner" --clear-groups -- "$@"; }
fi

cleanup() {
    as_postgres "$bin/pg_ctl" -D "$work/data" -m immediate -w stop >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

as_postgres "$bin/initdb" -D "$work/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 -N >/dev/null
as_postgres "$bin/pg_ctl" -D "$work/data" -w -l "$work/data/log" \
    -o "-k $work -c listen_addresses= ${postgres_options-}" start >/dev/null
export PGHOST="$work" PGUSER=postgres PGDATABASE=postgres PGOPTIONS="-c client_min_messages=warning"
for migration in migrations/*.sql; do
    # psql -1 runs the file in one transaction.
    transaction=-1
    [ "$(head -n 1 "$migration")" != "-- no-transaction" ] || transaction=
    # Unquoted, so that an empty value is no argument.
    "$bin/psql" -q -v ON_ERROR_STOP=1 $transaction -f "$migration"
done
