#!/bin/sh
# Fetches packages from PyPI into a folder of their own, as `pip install --target` does.
#
#   scripts/pip-target.sh FOLDER [OPTION]... PACKAGE...
set -eu

folder=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

# Debian and Ubuntu ship python3 without pip, or forbid pip to touch their own folders; a virtual environment has a pip
# of its own. Where only pip is there, it may still fill a folder that is not the system's.
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
