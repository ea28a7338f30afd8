#!/usr/bin/env bash
# Installs the programs that the tests drive (a browser, a proxy, a database), through
# apt-get where we are root; elsewhere says what is missing. With the argument "venv" it only
# makes sure that PYTHON can make virtual environments, and fails where it cannot.
set -u

PYTHON="${PYTHON:-python3}"

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

install() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"
}

have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }

has_venv() { "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; }

has_headers() {
    "$PYTHON" -c 'import os, sysconfig as s, sys
sys.exit(not os.path.exists(os.path.join(s.get_paths()["include"], "Python.h")))' 2>/dev/null
}

if [ "${1:-}" = venv ]; then
    has_venv && exit 0
    can_install && install python3-venv >/dev/null && has_venv && exit 0
    echo "$PYTHON cannot make a virtual environment: install python3-venv (or set PYTHON=)" >&2
    exit 1
fi

missing=()
have chromium || missing+=(chromium)
have chromedriver || missing+=(chromium-driver)
have nginx || missing+=(nginx-light)
have redis-server || missing+=(redis-server)
have initdb || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing+=(postgresql)
have pgbouncer || missing+=(pgbouncer)
have tinyproxy || missing+=(tinyproxy-bin)
have cc || missing+=(gcc libc6-dev)
has_headers || missing+=(python3-dev)
[ ${#missing[@]} = 0 ] && exit 0

if can_install && install "${missing[@]}" >/dev/null; then
    exit 0
fi
echo "Not installed: ${missing[*]}. The tests that need them are skipped, each with its reason."
exit 0
