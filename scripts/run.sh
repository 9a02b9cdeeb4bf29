#!/usr/bin/env bash
# The demonstration: everything on this machine, with images as jobs and a fleet that scales from zero to many and back.
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

# Prints the output of `millrace up` up to a line that contains $1.
print_until() {
    local line
    while IFS= read -r -t 120 line <&3; do
        echo "   up | $line"
        case $line in *"$1"*) return 0 ;; esac
    done
    echo "millrace up did not print: $1; its log:" >&2
    cat "$work/log" >&2
    return 1
}

echo "== millrace up: a gateway, a scaler, and no worker yet"
mkfifo "$work/output"
"$program" up --config deploy/local/millrace.yaml --set broker="embedded:$work/data" --set blobs.folder="$work/blobs" \
    >"$work/output" 2>"$work/log" &
up=$!
exec 3<"$work/output"
print_until "scaler grpc"

echo
echo "== millrace submit: 360 images of digits that the model has never seen"
print_until "→ 0 workers" >"$work/fleet" &
watching=$!
"$program" submit --pool digits --truth-from-name --rows 12 models/digits/held-out

echo
echo "== a burst: the same images 30 times over"
rounds=()
for _ in {1..30}; do rounds+=(models/digits/held-out); done
"$program" submit --pool digits --truth-from-name --rows 0 --concurrency 600 "${rounds[@]}"

echo
echo "== the fleet meanwhile, and until it is back at zero"
wait "$watching"
cat "$work/fleet"

echo
echo "== done: nothing is left running"
