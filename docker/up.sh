#!/usr/bin/env bash
# Create missing secrets, start the database, set it up, and search once. It is safe to run this again at any time.
#
# Secrets are files of mode 0600 in docker/secrets. They belong to the user as whom the containers read them: the one who
# runs this or, for root, a user without an account. No secret is an argument of a program or part of an image.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
umask 077

say() { printf '== %s\n' "$*" >&2; }
die() { printf 'up.sh: %s\n' "$*" >&2; exit 1; }

command -v docker >/dev/null || die "docker is not installed; without it: encvec db up"
docker compose version >/dev/null 2>&1 || die "docker has no compose plugin: install docker-compose-plugin"
command -v openssl >/dev/null || die "openssl is not installed; it makes the certificate of the database"

uid=$(id -u) gid=$(id -g)
if [ "$uid" = 0 ]; then uid=10001 gid=10001; fi
printf 'ENCVEC_UID=%s\nENCVEC_GID=%s\n' "$uid" "$gid" >.env # for `docker compose` by hand

mkdir -p secrets
new_secret() { # 256 bits, as hexadecimal digits without a line break
    [ -s "secrets/$1" ] || od -An -vtx1 -N32 /dev/urandom | tr -d ' \n' >"secrets/$1"
}
password_file() { # a role's password in the form that libpq reads
    printf '*:*:*:%s:%s\n' "$1" "$(cat "secrets/$1_password")" >"secrets/$1_pgpass"
}
certificate() { # of the database, for ten years, under an authority of its own, whose key is then deleted
    local tls
    tls=$(mktemp -d secrets/tls.XXXXXX)
    cat >"$tls/settings" <<'END'
[req]
distinguished_name = subject
prompt = no
[subject]
CN = encvec database
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:db, DNS:localhost, IP:127.0.0.1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
END
    new_key() { openssl ecparam -genkey -noout -name prime256v1 -out "$tls/$1"; }
    new_key authority.key
    new_key server.key
    openssl req -new -x509 -sha256 -days 3650 -config "$tls/settings" -extensions authority \
        -key "$tls/authority.key" -out "$tls/ca.crt"
    openssl req -new -sha256 -config "$tls/settings" -key "$tls/server.key" -out "$tls/request"
    openssl x509 -req -sha256 -days 3650 -in "$tls/request" -CA "$tls/ca.crt" -CAkey "$tls/authority.key" \
        -set_serial "0x$(od -An -vtx1 -N16 /dev/urandom | tr -d ' \n')" \
        -extfile "$tls/settings" -extensions server -out "$tls/server.crt" 2>/dev/null
    mv "$tls/ca.crt" "$tls/server.key" "$tls/server.crt" secrets/
    rm -r "$tls"
}
for name in postgres_password encvec_password passphrase; do new_secret "$name"; done
for role in postgres encvec; do password_file "$role"; done
recreate=()
if [ ! -s secrets/ca.crt ] || [ ! -s secrets/server.key ] || [ ! -s secrets/server.crt ]; then
    say "making a certificate for the database: secrets/server.crt"
    certificate
    recreate=(--force-recreate) # a running server still has the one before
fi
own() { [ "$(id -u)" != 0 ] || chown -R "$uid:$gid" secrets; }
own

say "building the image"
docker compose build --quiet encvec
if [ ! -s secrets/keys.json ]; then
    say "making a keyset: secrets/keys.json"
    docker run --rm --network none --read-only --user "$uid:$gid" --cap-drop ALL --security-opt no-new-privileges \
        --volume "$PWD/secrets:/run/secrets" encvec-store keys create >/dev/null
fi

say "starting PostgreSQL"
docker compose up --detach --wait "${recreate[@]}" db
docker compose run --rm init

say "a first search"
encvec() { docker compose run --rm --no-TTY encvec "$@"; }
seq 1 3 | sed 's/.*/{"id": "&", "vector": [&, 1, 0, 0]}/' | encvec ingest docker-smoke-test - >/dev/null
found=$(encvec search docker-smoke-test --id 2 -k 1 --json)
encvec drop docker-smoke-test --yes >/dev/null
case $found in *'"id": "2"'*) ;; *) die "the search did not find the record: $found" ;; esac

say "ready. Back up $PWD/secrets apart from the data: without keys.json and passphrase nothing can be read."
say "docker compose -f docker/compose.yaml run --rm encvec ...    or from this machine, port ${ENCVEC_PORT:-54329}"
