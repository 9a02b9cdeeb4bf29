#!/bin/sh
# Installs packages from PyPI in a folder, as `pip install --target` does.
#
#   scripts/pip-target.sh FOLDER [OPTION]... PACKAGE...
set -eu

folder=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

# Debian and Ubuntu ship python3 without pip, or do not let pip write to the system's folders. A virtual environment has its
# own pip. If there is only the system's pip, it can still write to this folder.
if python3 -m venv "$work/venv" >"$work/venv.log" 2>&1; then
    pip="$work/venv/bin/python3 -m pip"
elif python3 -m pip --version >/dev/null 2>&1; then
    pip="python3 -m pip"
    export PIP_BREAK_SYSTEM_PACKAGES=1
else
    cat "$work/venv.log" >&2
    echo "python3 has neither venv nor pip: apt-get install python3-venv" >&2
    exit 1
fi
# shellcheck disable=SC2086 # $pip is a command with arguments.
$pip install --quiet --disable-pip-version-check --only-binary :all: --target "$folder" "$@" >&2
