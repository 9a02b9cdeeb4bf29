#!/usr/bin/env bash
# The demonstration: everything on this machine, images in, predictions out, the fleet from zero to many and back.
# Usage: run.sh PROGRAM
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

program=$1
work=$(mktemp -d)
up=
finish() {
    if [ -n "$up" ]; then
        kill "$up" 2>/dev/null || true
        wait "$up" || true
    fi
    rm -rf "$work"
}
trap finish EXIT

fail() {
    echo "$1; the log:" >&2
    cat "$work/log" >&2
    exit 1
}

# Prints each line of `millrace up` until one contains the text $1.
see() {
    local line
    while IFS= read -r -t 120 line <&3; do
        echo "   up | $line"
        case $line in *"$1"*) return 0 ;; esac
    done
    fail "millrace up did not say: $1"
}

echo "== millrace up: gateway, scaler, and no worker yet"
mkfifo "$work/said"
"$program" up --config deploy/local/millrace.yaml --set backend="embedded:$work/data" --set blobs.folder="$work/blobs" \
    >"$work/said" 2>"$work/log" &
up=$!
exec 3<"$work/said"
see "gateway http"
gateway=${line_gateway:-http://127.0.0.1:8080}

echo
echo "== millrace submit: 360 images of digits that the model has never seen"
"$program" submit --gateway "$gateway" --pool digits --truth-from-name --rows 12 models/digits/held-out

echo
echo "== the fleet, meanwhile and until it is back at zero"
see "→ 0 workers"

echo
echo "== done: nothing is left running"
