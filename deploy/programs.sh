#!/bin/sh
# Builds what the images need, inside the first stage of deploy/Containerfile: both programs, the libraries of libtorch and the
# SBOM.
#
#   programs.sh FOLDER
#
# CUDA=1 fetches the complete torch with its CUDA libraries.
set -eu

folder=$1
cd "$(dirname "$0")/.."
apt-get update
apt-get install --yes --no-install-recommends cmake g++ libssl-dev pkg-config python3-venv
if [ -n "${CUDA:-}" ]; then
    scripts/pip-target.sh "$MILLRACE_CACHE/cuda" "torch==$(sed -n 's/^TORCH=//p' scripts/libtorch.sh)"
    export LIBTORCH=$MILLRACE_CACHE/cuda/torch
else
    LIBTORCH=$(scripts/libtorch.sh)
    export LIBTORCH
fi
cargo build --release --locked --bin millrace
deploy/pack.sh "$folder" target/release/millrace ''
cargo build --release --locked --workspace --features torch --bin millrace
deploy/pack.sh "$folder" '' target/release/millrace
