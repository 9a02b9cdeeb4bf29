#!/bin/sh
# Prints the folder of libtorch on standard output, and its progress on standard error. Fetches libtorch if it is missing.
#
#   export LIBTORCH="$(scripts/libtorch.sh)"
#
# If LIBTORCH is set, that folder is used. Otherwise libtorch comes from PyPI's torch wheel, into the folder libtorch of
# MILLRACE_CACHE (default: .cache in this repository). Only two dependencies of the wheel are fetched: CUDA's runtime
# and profiler. The CPU part of libtorch is linked with them, even on a machine without a GPU. This makes 580 MB instead
# of several GB. On a machine with a GPU, set LIBTORCH to the torch folder of a complete `pip install torch==2.11.0`.
set -eu

TORCH=2.11.0
CUDA_RUNTIME=13.0.96
CUDA_CUPTI=13.0.85

log() { echo "libtorch: $*" >&2; }
fail() { log "$*"; exit 1; }

# Whether the folder holds libtorch with its headers.
is_libtorch() { [ -f "$1/lib/libtorch_cpu.so" ] && [ -f "$1/include/torch/script.h" ]; }

if [ -n "${LIBTORCH:-}" ]; then
    case $LIBTORCH in /*) ;; *) fail "LIBTORCH=$LIBTORCH is not an absolute path" ;; esac
    is_libtorch "$LIBTORCH" ||
        fail "LIBTORCH=$LIBTORCH holds no lib/libtorch_cpu.so and include/torch; unset it to fetch libtorch"
    log "using LIBTORCH=$LIBTORCH"
    echo "$LIBTORCH"
    exit 0
fi

repository=$(cd "$(dirname "$0")/.." && pwd)
cache=${MILLRACE_CACHE:-$repository/.cache}
mkdir -p "$cache" || fail "MILLRACE_CACHE=$cache cannot be created"
cache=$(cd "$cache" && pwd)

# The names of these folders contain the versions, so a new version in this script is fetched.
wanted="torch $TORCH, nvidia-cuda-runtime $CUDA_RUNTIME, nvidia-cuda-cupti $CUDA_CUPTI"
folder=$cache/libtorch
if is_libtorch "$folder/torch" && [ -d "$folder/torch-$TORCH.dist-info" ] &&
    [ -d "$folder/nvidia_cuda_runtime-$CUDA_RUNTIME.dist-info" ] &&
    [ -d "$folder/nvidia_cuda_cupti-$CUDA_CUPTI.dist-info" ]; then
    log "found in $folder"
    echo "$folder/torch"
    exit 0
fi

case $(uname -s) in Linux) ;; *) fail "libtorch is fetched only for Linux; set LIBTORCH to a libtorch $TORCH" ;; esac
command -v python3 >/dev/null ||
    fail "python3 is needed to fetch libtorch: apt-get install python3-venv, or set LIBTORCH to a libtorch $TORCH"

# The files go to a temporary folder and are moved at the end, so an interrupted run leaves no incomplete folder.
partial=$(mktemp -d "$cache/libtorch.partial.XXXXXX")
trap 'rm -rf "$partial"' EXIT
trap 'exit 130' INT TERM HUP

log "fetching $wanted (580 MB) into $folder"
"$repository/scripts/pip-target.sh" "$partial/libtorch" --no-deps --no-compile \
    "torch==$TORCH" "nvidia-cuda-runtime==$CUDA_RUNTIME" "nvidia-cuda-cupti==$CUDA_CUPTI" ||
    fail "pip could not fetch $wanted; its reason is above (or set LIBTORCH to a libtorch $TORCH)"
is_libtorch "$partial/libtorch/torch" || fail "the torch wheel $TORCH does not contain the expected files"

# An existing folder is incomplete or of another version. Another process may have fetched the same files in the meantime;
# then its folder is used.
if [ -e "$folder" ]; then
    mv "$folder" "$partial/old"
fi
if ! mv -T "$partial/libtorch" "$folder" 2>/dev/null; then
    is_libtorch "$folder/torch" || fail "$folder cannot be created"
fi
log "done"
echo "$folder/torch"
