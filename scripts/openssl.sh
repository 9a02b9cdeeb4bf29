#!/bin/sh
# Checks that OpenSSL's headers and pkg-config are there: the client of Kafka is compiled against the system's OpenSSL.
# As root it installs them if they are missing.
set -eu

found() { [ -n "${OPENSSL_DIR:-}" ] || pkg-config --exists 'openssl >= 1.1.1' 2>/dev/null; }

found && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update >&2
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends libssl-dev pkg-config >&2
fi
found && exit 0
echo "openssl: its headers or pkg-config are missing: apt-get install libssl-dev pkg-config, or set OPENSSL_DIR" >&2
exit 1
