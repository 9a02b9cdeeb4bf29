#!/bin/sh
# Prints the folder of libtorch on stdout, fetching it first if need be. What it does, it says on stderr.
#
#   export LIBTORCH="$(scripts/libtorch.sh)"
#
# A LIBTORCH that is set already is respected. Otherwise libtorch comes as PyPI's torch wheel, into the folder libtorch of
# MILLRACE_CACHE (.cache in this repository unless set). The wheel's dependencies are left out but for two: the CPU part
# of libtorch asks for CUDA's runtime and profiler by name even where there is no GPU. That is 580 MB to fetch, and not
# several GB. On a machine with a GPU, set LIBTORCH to the torch folder of a complete `pip install torch==2.11.0`.
set -eu

TORCH=2.11.0
CUDA_RUNTIME=13.0.96
CUDA_CUPTI=13.0.85

say() { echo "libtorch: $*" >&2; }
fail() { say "$*"; exit 1; }

# Whether the folder holds a libtorch to compile against.
is_libtorch() { [ -f "$1/lib/libtorch_cpu.so" ] && [ -f "$1/include/torch/script.h" ]; }

if [ -n "${LIBTORCH:-}" ]; then
    case $LIBTORCH in /*) ;; *) fail "LIBTORCH=$LIBTORCH is not an absolute path" ;; esac
    is_libtorch "$LIBTORCH" ||
        fail "LIBTORCH=$LIBTORCH holds no lib/libtorch_cpu.so and include/torch; unset it to fetch libtorch"
    say "using LIBTORCH=$LIBTORCH"
    echo "$LIBTORCH"
    exit 0
fi

repository=$(cd "$(dirname "$0")/.." && pwd)
cache=${MILLRACE_CACHE:-$repository/.cache}
mkdir -p "$cache" || fail "MILLRACE_CACHE=$cache cannot be made"
cache=$(cd "$cache" && pwd)

# The versions lie beside the files, so that a newer libtorch is fetched when this script asks for one.
wanted="torch $TORCH, nvidia-cuda-runtime $CUDA_RUNTIME, nvidia-cuda-cupti $CUDA_CUPTI"
folder=$cache/libtorch
if is_libtorch "$folder/torch" && [ -d "$folder/torch-$TORCH.dist-info" ] &&
    [ -d "$folder/nvidia_cuda_runtime-$CUDA_RUNTIME.dist-info" ] &&
    [ -d "$folder/nvidia_cuda_cupti-$CUDA_CUPTI.dist-info" ]; then
    say "found in $folder"
    echo "$folder/torch"
    exit 0
fi

case $(uname -s) in Linux) ;; *) fail "only Linux is fetched for; set LIBTORCH to a libtorch $TORCH" ;; esac
command -v python3 >/dev/null ||
    fail "python3 is needed to fetch libtorch: apt-get install python3-venv, or set LIBTORCH to a libtorch $TORCH"

# Everything is made in a folder of its own and moved at the end: a run that is cut short leaves no half of it behind.
partial=$(mktemp -d "$cache/libtorch.partial.XXXXXX")
trap 'rm -rf "$partial"' EXIT
trap 'exit 130' INT TERM HUP

say "fetching $wanted (580 MB) into $folder"
"$repository/scripts/pip-target.sh" "$partial/libtorch" --no-deps --no-compile \
    "torch==$TORCH" "nvidia-cuda-runtime==$CUDA_RUNTIME" "nvidia-cuda-cupti==$CUDA_CUPTI" ||
    fail "pip could not fetch $wanted; its reason is above (or set LIBTORCH to a libtorch $TORCH)"
is_libtorch "$partial/libtorch/torch" || fail "the torch wheel does not hold what was expected of version $TORCH"

# What lay there before is incomplete or of another version. Someone else may have been faster; then theirs will do.
if [ -e "$folder" ]; then
    mv "$folder" "$partial/old"
fi
if ! mv -T "$partial/libtorch" "$folder" 2>/dev/null; then
    is_libtorch "$folder/torch" || fail "$folder cannot be made"
fi
say "done"
echo "$folder/torch"
