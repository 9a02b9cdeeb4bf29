#!/bin/sh
# Prints the folder of the Python packages that tests use as outside clients, for PYTHONPATH, fetching them first if need
# be. What it does, it says on stderr.
#
# They are the CloudEvents SDK and Confluent's Kafka client, from PyPI, in the folder python of MILLRACE_CACHE (.cache in
# this repository unless set).
set -eu

CLOUDEVENTS=2.2.0
CONFLUENT_KAFKA=2.16.1

say() { echo "python: $*" >&2; }
fail() { say "$*"; exit 1; }

repository=$(cd "$(dirname "$0")/.." && pwd)
cache=${MILLRACE_CACHE:-$repository/.cache}
mkdir -p "$cache" || fail "MILLRACE_CACHE=$cache cannot be made"
cache=$(cd "$cache" && pwd)

command -v python3 >/dev/null || fail "python3 is needed: apt-get install python3-venv"
# Compiled parts are for one version of Python.
folder=$cache/python/$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ -d "$folder/cloudevents-$CLOUDEVENTS.dist-info" ] && [ -d "$folder/confluent_kafka-$CONFLUENT_KAFKA.dist-info" ]; then
    say "found in $folder"
    echo "$folder"
    exit 0
fi

# Everything is made in a folder of its own and moved at the end: a run that is cut short leaves no half of it behind.
partial=$(mktemp -d "$cache/python.partial.XXXXXX")
trap 'rm -rf "$partial"' EXIT
trap 'exit 130' INT TERM HUP
say "fetching cloudevents $CLOUDEVENTS and confluent-kafka $CONFLUENT_KAFKA into $folder"
"$repository/scripts/pip-target.sh" "$partial/packages" "cloudevents==$CLOUDEVENTS" "confluent-kafka==$CONFLUENT_KAFKA" ||
    fail "pip could not fetch them; its reason is above"
mkdir -p "$cache/python"
[ ! -e "$folder" ] || mv "$folder" "$partial/old"
# Someone else may have been faster; then theirs will do.
mv -T "$partial/packages" "$folder" 2>/dev/null || [ -d "$folder/cloudevents-$CLOUDEVENTS.dist-info" ] ||
    fail "$folder cannot be made"
echo "$folder"
