#!/usr/bin/env bash
# Run tests on Debian's own PostgreSQL 15, the oldest that is supported, with pgvector built from Debian's own source
# package. Debian 12 has no package of pgvector, so the source comes from Debian 13 (pgvector 0.8.0, the oldest that
# is supported); another release can be named: PGVECTOR_SUITE=sid.
#
#   tests/debian_pg15.sh [ARGUMENTS OF PYTEST]     without files: every test that needs PostgreSQL
#   PYTHON=...                                     the Python whose pytest runs, default .venv/bin/python
#   PG15_DIR=...                                   where the server is put together, once
#
# All of it comes from the mirror in the machine's apt sources, checked by apt's signatures, and goes into a directory
# of its own: PostgreSQL finds its files relative to its program. What the system lacks (compiler, libraries) is
# installed by apt-get where this is root; else it says what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

MAJOR=15
SUITE=${PGVECTOR_SUITE:-trixie}
PYTHON=${PYTHON:-.venv/bin/python}
if [ "$(id -u)" = 0 ]; then cache=/var/cache; else cache=${XDG_CACHE_HOME:-$HOME/.cache}; fi
DIR=${PG15_DIR:-$cache/encvec-store/debian-pg$MAJOR-pgvector-$SUITE}
PREFIX=$DIR/tree/usr/lib/postgresql/$MAJOR

say() { printf '== %s\n' "$*"; }
die() { printf 'debian_pg15.sh: %s\n' "$*" >&2; exit 1; }

# apt with the machine's settings but lists of its own, so that a source suite can be added without touching /etc/apt.
own_apt() {
    local tool=$1
    shift
    "$tool" -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$work/sources" \
        -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User= "$@"
}

need() { # need PROGRAM PACKAGE
    command -v "$1" >/dev/null && return
    [ "$(id -u)" = 0 ] || die "$1 is missing: install Debian's package $2"
    install_packages "$2"
}

install_packages() {
    say "installing $*"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

find_mirror() { # where this machine gets Debian 12 from; known once apt-get update has run
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' 'Label: Debian' | sed 1q
}

build() {
    local work release mirror keyring
    # shellcheck disable=SC1091
    release=$(. /etc/os-release && echo "${ID:-}-${VERSION_CODENAME:-}")
    [ "$release" = debian-bookworm ] || die "this is for Debian 12, which has PostgreSQL $MAJOR; here is $release"
    need make make
    need gcc gcc
    need dpkg-source dpkg-dev
    [ -e /usr/include/stdio.h ] || install_packages libc6-dev

    work=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$work'" EXIT
    mkdir -p "$work/sources" "$work/lists/partial" "$work/cache" "$work/debs"

    mirror=$(find_mirror)
    [ -n "$mirror" ] || { apt-get update -qq && mirror=$(find_mirror); }
    [ -n "$mirror" ] || die "found no mirror of Debian 12 in apt's sources"
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    printf 'Types: deb\nURIs: %s\nSuites: bookworm\nComponents: main\nSigned-By: %s\n\n' "$mirror" "$keyring" \
        >"$work/sources/debian.sources"
    printf 'Types: deb-src\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$mirror" "$SUITE" "$keyring" \
        >>"$work/sources/debian.sources"
    say "fetching PostgreSQL $MAJOR and the source of pgvector ($SUITE)"
    own_apt apt-get update -qq
    (
        cd "$work/debs"
        own_apt apt-get download -qq "postgresql-$MAJOR" "postgresql-client-$MAJOR" "postgresql-server-dev-$MAJOR"
        own_apt apt-get source -qq pgvector
    ) >"$work/log" 2>&1 || { cat "$work/log" >&2; die "could not fetch them"; }
    for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/tree"; done

    local built=$work/tree/usr/lib/postgresql/$MAJOR
    if ldd "$built/bin/postgres" | grep -q 'not found' || [ ! -e /usr/share/zoneinfo ]; then
        [ "$(id -u)" = 0 ] || die "libraries of PostgreSQL are missing: install Debian's package postgresql-$MAJOR"
        if [ ! -e /etc/postgresql-common ]; then # else a server of the system's would be made, and started
            mkdir /etc/postgresql-common
            echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
        fi
        install_packages "postgresql-$MAJOR"
    fi
    say "building pgvector"
    (
        cd "$work"/debs/pgvector-*/
        # as its debian/rules does, for any CPU; without LLVM, which nothing here needs
        make -j"$(nproc)" OPTFLAGS= with_llvm=no PG_CONFIG="$built/bin/pg_config"
        make install with_llvm=no PG_CONFIG="$built/bin/pg_config"
    ) >"$work/log" 2>&1 || { tail -n 30 "$work/log" >&2; die "pgvector could not be built"; }

    mkdir -p "$(dirname "$DIR")"
    rm -rf "$DIR.new" "$DIR"
    mkdir "$DIR.new"
    cp -a "$work/tree" "$DIR.new/tree"
    chmod -R u+rwX,go+rX,go-w "$DIR.new"
    mv "$DIR.new" "$DIR"
    rm -rf "$work"
    trap - EXIT
}

[ -x "$PYTHON" ] || command -v "$PYTHON" >/dev/null || die "$PYTHON is not there: run make test once, or set PYTHON"
[ -x "$PREFIX/bin/postgres" ] || build
control=$DIR/tree/usr/share/postgresql/$MAJOR/extension/vector.control
say "$("$PREFIX/bin/postgres" --version), pgvector $(sed -n "s/^default_version = '\(.*\)'/\1/p" "$control")"

named=no
for argument in "$@"; do if [ -e "${argument%%::*}" ]; then named=yes; fi; done
if [ "$named" = no ]; then
    set -- "$@" tests/localpg tests/storage/test_postgres*.py tests/indexes/test_pgvector*.py \
        tests/stores/test_pgvector*.py \
        tests/integrations/test_sqlalchemy*.py
fi
# The store warns of pgvector before 0.8.4, rightly; here it is the oldest that is supported.
OLD='ignore:pgvector 0.8.0 has defects:RuntimeWarning'
unset ENCVEC_TEST_DSN
ENCVEC_PG_PREFIX=$PREFIX exec "$PYTHON" -m pytest -W "$OLD" "$@"
