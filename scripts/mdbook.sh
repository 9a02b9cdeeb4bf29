#!/usr/bin/env bash
# Prints the path of mdBook, which it installs into the cache folder if it is not there.
set -euo pipefail

version=0.5.4
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${MILLRACE_CACHE:-$root/.cache}/tools
program=$tools/bin/mdbook

if [ "$("$program" --version 2>/dev/null)" != "mdbook v$version" ]; then
    echo "installing mdbook $version into $tools (some minutes, once)" >&2
    # Only `build` is needed: neither the search index nor the server nor the watcher.
    CARGO_TARGET_DIR=$tools/target-mdbook cargo install mdbook --version "$version" --locked --no-default-features \
        --force --root "$tools" >&2
    rm -rf "$tools/target-mdbook"
fi
echo "$program"
