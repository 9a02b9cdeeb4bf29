#!/usr/bin/env bash
# Checks that each crate of the workspace compiles without features, and with each of its features alone.
#
# Left out: `default`, which every other build has, and `torch`, which needs libtorch and has a build of its own in `make check`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

list='
import json, sys
for package in json.load(sys.stdin)["packages"]:
    features = sorted(set(package["features"]) - {"default", "torch"})
    for feature in [""] + features if features or "default" in package["features"] else []:
        print(package["name"], feature)
'
cargo metadata --format-version 1 --no-deps --locked | python3 -c "$list" | while read -r package feature; do
    echo "features: $package with ${feature:-no feature}" >&2
    cargo check --quiet --release --locked -p "$package" --no-default-features --features "$feature" </dev/null
done
