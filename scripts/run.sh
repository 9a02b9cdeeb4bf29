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
trap 'exit 130' INT TERM

# Prints what `millrace up` says, up to a line that contains $1.
see() {
    local line
    while IFS= read -r -t 120 line <&3; do
        echo "   up | $line"
        case $line in *"$1"*) return 0 ;; esac
    done
    echo "millrace up did not say: $1; its log:" >&2
    cat "$work/log" >&2
    return 1
}

echo "== millrace up: a gateway, a scaler, and no worker yet"
mkfifo "$work/said"
"$program" up --config deploy/local/millrace.yaml --set broker="embedded:$work/data" --set blobs.folder="$work/blobs" \
    >"$work/said" 2>"$work/log" &
up=$!
exec 3<"$work/said"
see "scaler grpc"

echo
echo "== millrace submit: 360 images of digits that the model has never seen"
see "→ 0 workers" >"$work/seen" &
seeing=$!
"$program" submit --pool digits --truth-from-name --rows 12 models/digits/held-out

echo
echo "== a burst: the same images 30 times over"
rounds=()
for _ in {1..30}; do rounds+=(models/digits/held-out); done
"$program" submit --pool digits --truth-from-name --rows 0 --concurrency 600 "${rounds[@]}"

echo
echo "== the fleet meanwhile, and until it is back at zero"
wait "$seeing"
cat "$work/seen"

echo
echo "== done: nothing is left running"
