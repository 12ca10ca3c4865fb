# The variables and helper functions that the blocks of the documentation pages need. test-docs puts
# this script in front of the blocks.
set -e
mkdir -p "$work"

# `block` is the page and line of the block that runs.
start_block() { block=$1; echo "test-docs: $block"; }
unexpected_success() { echo "test-docs: $block succeeds, but its page shows an error"; exit 1; }
trap 'code=$?; stop_all; [ $code = 0 ] || echo "test-docs: $block failed"' EXIT

# Signs in the administrator of the README, and sets the variables of her session.
sign_in() {
    LOGIN=$(call AuthService/Login '{"email": "ada@acme.test", "password": "correct horse battery", "organization_slug": "acme"}')
    TOKEN=$(echo "$LOGIN" | field accessToken)
    SESSION_ID=$(echo "$LOGIN" | field sessionId)
}

# Prints the URL of the database of the current page, with this role.
database_url() { echo "$TENANTRY_POSTGRES" | sed "s#//postgres@#//$1@#; s#/tenantry?#/$database?#"; }

# Creates a database and a directory of keys for a page about the operation of the server.
create_database() {
    database=docs_$1
    keys=$work/$1
    mkdir "$keys"
    psql --quiet "$TENANTRY_POSTGRES" --command "create database $database"
}

# Starts an empty Postgres cluster that is owned by the superuser `postgres`. The cluster
# archives its write-ahead log as soon as it has an archive_command, and stops with this script.
start_new_cluster() {
    postgres_bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
    [ -n "$postgres_bin" ] || postgres_bin=$(dirname "$(command -v initdb)")
    new_cluster=$(mktemp -d /tmp/tenantry-docs.XXXXXX)
    as_postgres=
    # Postgres refuses to run as root.
    if [ "$(id -u)" = 0 ]; then
        chown postgres "$new_cluster"
        chmod 711 "$new_cluster"
        as_postgres='setpriv --reuid postgres --clear-groups --'
    fi
    $as_postgres mkdir "$new_cluster/archive"
    $as_postgres "$postgres_bin/initdb" -D "$new_cluster/data" -U postgres -A trust -E UTF8 \
        --locale=C.UTF-8 -N >/dev/null
    pg_ctl --pgdata="$new_cluster/data" --wait start
}

# Programs of Postgres that the pages run as the user of Postgres. A server of the new cluster
# listens only on a socket.
pg_ctl() {
    $as_postgres "$postgres_bin/pg_ctl" --log="$new_cluster/log" \
        --options="-k $new_cluster -c listen_addresses= -c fsync=off -c archive_mode=on" "$@" >/dev/null
}
pg_basebackup() { $as_postgres "$postgres_bin/pg_basebackup" "$@"; }

# Prints the URL of a database of the new cluster, with this role.
new_url() { echo "postgres://$1@localhost/$2?host=$new_cluster"; }

# Stops what the pages have left running.
stop_all() {
    [ -z "${server-}" ] || kill -INT "$server" 2>/dev/null || true
    [ -n "${new_cluster-}" ] || return 0
    for data in data restored; do
        pg_ctl --pgdata="$new_cluster/$data" --mode=immediate --wait stop 2>/dev/null || true
    done
    rm -rf "$new_cluster"
}

# Prepares the variables that the blocks of a page need.
prepare_page() {
    cd "$work"
    case $1 in
        service-accounts | audit | runbook | passwords | guides/verify-email) sign_in ;;
        deployment | data)
            # An earlier page may have replaced `call` by a function that waits for a mail. This
            # restores the `call` of the README.
            ! declare -f make_call >/dev/null || eval "$(declare -f make_call | sed '1s/make_call/call/')"
            create_database "$1"
            ;;
    esac
    case $1 in
        audit) export DATABASE_URL=$(database=tenantry database_url tenantry_app) ;;
        runbook)
            API_KEY_ID=$(call ServiceAccountService/ListApiKeys "{\"service_account_id\": \"$ACCOUNT\"}" | field id)
            ;;
        deployment)
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost \
                -keyout "$keys/tls.key.pem" -out "$keys/tls.pem" 2>/dev/null
            ;;
        passwords)
            # Renames `call` of the README to `make_call`. The new `call` also waits for the mail.
            eval "$(declare -f call | sed '1s/call/make_&/')"
            call() {
                make_call "$@" || return
                [ "$1" != AuthService/RequestPasswordReset ] || RESET_TOKEN=$(wait_for_token)
            }
            ;;
        guides/verify-email)
            # `make_call` is the `call` of the README (see above).
            call() {
                case $1 in
                    AuthService/RequestEmailVerification | AuthService/ChangeEmail | AuthService/Register)
                        rm -f "$work"/../mail/*.eml
                        make_call "$@" || return
                        EMAIL_TOKEN=$(wait_for_token)
                        ;;
                    *) make_call "$@" ;;
                esac
            }
            ;;
        data)
            export MIGRATE_DATABASE_URL=$(database_url postgres)
            export DATABASE_URL=$(database_url tenantry_app)
            MASTER_KEY_PATH=off tenantry migrate
            ;;
        backup)
            # A deployment whose schema belongs to a role that is no superuser.
            unset TLS_CERT_PATH TLS_KEY_PATH
            create_database backup
            psql --quiet "$TENANTRY_POSTGRES" --command 'create role owner login createrole' \
                --command "alter database $database owner to owner"
            export MIGRATE_DATABASE_URL=$(database_url owner) DATABASE_URL=$(database_url tenantry_app)
            export REDIS_URL=$TENANTRY_REDIS MASTER_KEY_PATH=$keys/master.keys
            for kind in access refresh; do
                name=$(echo $kind | tr a-z A-Z)
                export JWT_${name}_PRIVATE_KEY_PATH=$keys/$kind.pem JWT_${name}_PUBLIC_KEY_PATH=$keys/$kind.pub.pem
            done
            command tenantry migrate
            command tenantry keys generate --dir "$keys"
            command tenantry master-key generate
            command tenantry bootstrap --email root@example.com
            start_new_cluster
            keep_serving=yes
            tenantry serve
            TOKEN=
            call AuthService/Register '{"email": "ada@acme.test", "password": "correct horse battery", "organization_name": "Acme"}'
            sign_in
            ;;
    esac
}

# Waits for the mail and prints the token in it. The lines of the mail are folded (RFC 2045, 6.7).
wait_for_token() {
    for _ in $(seq 100); do
        sed -n -e ':a' -e '/=\r$/{N;s/=\r\n//;ba' -e '}' -e 's/^\([A-Za-z0-9_-]\{80,\}\)\r$/\1/p' \
            "$work"/../mail/*.eml 2>/dev/null | grep . && return
        sleep 0.1
    done
    return 1
}

# Runs the binary. `tenantry serve` is stopped as soon as it serves, so that the next commands of
# the page run. With `keep_serving`, the next commands call this server.
tenantry() {
    if [ "$1" != serve ]; then
        command tenantry "$@"
        return
    fi
    if [ -n "${server-}" ]; then
        kill -INT "$server"
        wait "$server" || true
    fi
    : >"$work/serve.log"
    GRPC_ADDR=127.0.0.1:0 command tenantry "$@" >>"$work/serve.log" 2>&1 &
    server=$!
    until grep -qw serving "$work/serve.log"; do
        kill -0 $server 2>/dev/null || { cat "$work/serve.log"; return 1; }
        sleep 0.1
    done
    if [ -n "${keep_serving-}" ]; then
        TENANTRY_ADDR=$(grep -w serving "$work/serve.log" | grep -o '127\.0\.0\.1:[0-9]*' | head -n 1)
        return
    fi
    kill -INT $server
    wait $server
    server=
}
