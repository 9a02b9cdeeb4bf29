#!/usr/bin/env bash
# Fuzzes the parsers of bytes that come from outside: each target gets a bounded number of inputs, the same each time.
#
#   fuzz.sh [TARGET...]        all targets of fuzz/Cargo.toml unless some are named
#
# FUZZ_RUNS is the number of inputs of a target (20000), FUZZ_SEED the start of the random numbers (1). The targets are
# built in the folder fuzz of CARGO_TARGET_DIR (default: target in MILLRACE_CACHE). An input on which a target fails is
# written there, into artifacts. The seeds in this repository are only read.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

runs=${FUZZ_RUNS:-20000}
build=${CARGO_TARGET_DIR:-${MILLRACE_CACHE:-$PWD/.cache}/target}/fuzz
triple=$(rustc -vV | sed -n 's/^host: //p')

# The flags of `cargo fuzz --sanitizer none`, which a stable compiler accepts. With --target, build scripts and procedural
# macros do not get them.
flags=(
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    --cfg=fuzzing
)
RUSTFLAGS="${flags[*]}" CARGO_TARGET_DIR=$build \
    cargo build --release --locked --manifest-path fuzz/Cargo.toml --target "$triple" --bins

if [ $# -eq 0 ]; then
    mapfile -t targets < <(sed -n '/^\[\[bin\]\]/{n;s/^name = "\(.*\)"/\1/p}' fuzz/Cargo.toml)
    set -- "${targets[@]}"
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$build/artifacts"

passed=0 failed=0
for target in "$@"; do
    program=$build/$triple/release/$target
    log=$scratch/$target.log
    artifact=$scratch/$target.artifact
    mkdir -p "$scratch/$target.corpus" "$scratch/$target.tmp"
    cp "fuzz/seeds/$target/"* "$scratch/$target.corpus"
    begin=$SECONDS
    if TMPDIR=$scratch/$target.tmp "$program" -runs="$runs" -seed="${FUZZ_SEED:-1}" -max_len=4096 -timeout=10 \
        -rss_limit_mb=2048 -exact_artifact_path="$artifact" "$scratch/$target.corpus" >"$log" 2>&1; then
        passed=$((passed + 1))
        covered=$(sed -n 's/.*DONE *cov: \([0-9]*\).*/\1/p' "$log" | tail -n 1)
        echo "fuzz: $target: passed, $runs inputs, $((SECONDS - begin)) s, coverage ${covered:-unknown}"
        continue
    fi
    failed=$((failed + 1))
    grep -E -A 3 'panicked at|^==[0-9]+== ?ERROR' "$log" | head -n 20 >&2 || tail -n 20 "$log" >&2
    if [ -f "$artifact" ]; then
        input=$build/artifacts/$target-$(sha256sum "$artifact" | head -c 16)
        mv "$artifact" "$input"
        echo "fuzz: $target: FAILED; to repeat: $program $input"
    else
        echo "fuzz: $target: FAILED without an input"
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
