#!/bin/sh
# Packs the programs for the images: without debug information, with the libraries of libtorch and the SBOM.
#
#   pack.sh FOLDER PLAIN TORCH
#
# PLAIN is the program without libtorch, TORCH the one with it; an empty name is left out. LIBTORCH is the folder of libtorch.
set -eu

folder=$1 plain=$2 torch=$3
repository=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$folder/libtorch"
[ -z "$plain" ] || strip --strip-all -o "$folder/millrace" "$plain"
if [ -n "$torch" ]; then
    strip --strip-all -o "$folder/millrace-torch" "$torch"
    # The CPU part of libtorch is linked with two of NVIDIA's libraries.
    needed='libtorch_cpu.so libc10.so libgomp.so.1 libcudart.so.13 libcupti.so.13'
    for library in "$LIBTORCH"/lib/*.so* "$LIBTORCH"/../nvidia/*/lib/*.so*; do
        case $(basename "$library") in
            *python* | libtorch.so | libshm.so) continue ;;
        esac
        case " $needed " in
            *" $(basename "$library") "*) ;;
            *) [ -n "${CUDA:-}" ] || continue ;;
        esac
        [ ! -e "$library" ] || cp -L "$library" "$folder/libtorch/"
    done
fi
python3 "$repository/deploy/sbom.py" >"$folder/millrace.cdx.json"
