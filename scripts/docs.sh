# The setup that the documentation pages expect: variables and helpers. test-docs puts this script
# in front of the blocks of the pages.
set -e
mkdir -p "$work"

begin() { at=$1; echo "test-docs: $at"; }
wrong() { echo "test-docs: $at succeeds, but its page shows an error"; exit 1; }
trap 'code=$?; [ $code = 0 ] || echo "test-docs: $at failed"' EXIT

# Signs in the administrator of the README, and sets the variables of her session.
sign_in() {
    LOGIN=$(call AuthService/Login '{"email": "ada@acme.test", "password": "correct horse battery", "organization_slug": "acme"}')
    TOKEN=$(echo "$LOGIN" | field accessToken)
    SESSION_ID=$(echo "$LOGIN" | field sessionId)
}

# The URL of the page's own database, with this role.
database() { echo "$TENANTRY_POSTGRES" | sed "s#//postgres@#//$1@#; s#/tenantry?#/$database?#"; }

operate() {
    database=docs_$1
    keys=$work/$1
    mkdir "$keys"
    psql --quiet "$TENANTRY_POSTGRES" --command "create database $database"
}

page() {
    cd "$work"
    case $1 in
        service-accounts | audit | runbook | passwords) sign_in ;;
        deployment | data) operate "$1" ;;
    esac
    case $1 in
        audit) export DATABASE_URL=$(database=tenantry database tenantry_app) ;;
        runbook)
            API_KEY_ID=$(call ServiceAccountService/ListApiKeys "{\"service_account_id\": \"$ACCOUNT\"}" | field id)
            ;;
        deployment)
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost \
                -keyout "$keys/tls.key.pem" -out "$keys/tls.pem" 2>/dev/null
            ;;
        passwords)
            eval "$(declare -f call | sed '1s/call/make_&/')"
            call() {
                make_call "$@"
                [ "$1" != AuthService/RequestPasswordReset ] || RESET_TOKEN=$(mailed)
            }
            ;;
        data)
            export MIGRATE_DATABASE_URL=$(database postgres) DATABASE_URL=$(database tenantry_app)
            MASTER_KEY_PATH=off tenantry migrate
            ;;
    esac
}

# Waits for the mail and prints its token. The lines of the mail are folded (RFC 2045, 6.7).
mailed() {
    for _ in $(seq 100); do
        sed -n -e ':a' -e '/=\r$/{N;s/=\r\n//;ba' -e '}' -e 's/^\([A-Za-z0-9_-]\{80,\}\)\r$/\1/p' \
            "$work"/../mail/*.eml 2>/dev/null | grep . && return
        sleep 0.1
    done
    return 1
}

# `tenantry serve` is stopped as soon as it serves, so that the page continues.
tenantry() {
    if [ "$1" != serve ]; then
        command tenantry "$@"
        return
    fi
    : >"$work/serve.log"
    GRPC_ADDR=127.0.0.1:0 command tenantry "$@" >>"$work/serve.log" 2>&1 &
    local server=$!
    until grep -qw serving "$work/serve.log"; do
        kill -0 $server 2>/dev/null || { cat "$work/serve.log"; return 1; }
        sleep 0.1
    done
    kill -INT $server
    wait $server
}
