#!/usr/bin/env bash
# Prints the path of cargo-deny. Installs it into the cache folder if it is missing.
set -euo pipefail

version=0.20.2
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${MILLRACE_CACHE:-$root/.cache}/tools
program=$tools/bin/cargo-deny

if [ "$("$program" --version 2>/dev/null)" != "cargo-deny $version" ]; then
    echo "installing cargo-deny $version into $tools (some minutes, once)" >&2
    CARGO_TARGET_DIR=$tools/target cargo install cargo-deny --version "$version" --locked --force --root "$tools" >&2
    rm -rf "$tools/target"
fi
echo "$program"
