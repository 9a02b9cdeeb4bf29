#!/bin/sh
# Prints the folder of the Python packages that tests use as outside clients, for PYTHONPATH, and its progress on standard
# error. Fetches the packages if they are missing.
#
# They are the CloudEvents SDK and Confluent's Kafka client, from PyPI, in the folder python of MILLRACE_CACHE (default:
# .cache in this repository).
set -eu

CLOUDEVENTS=2.2.0
CONFLUENT_KAFKA=2.16.1

log() { echo "python: $*" >&2; }
fail() { log "$*"; exit 1; }

repository=$(cd "$(dirname "$0")/.." && pwd)
cache=${MILLRACE_CACHE:-$repository/.cache}
mkdir -p "$cache" || fail "MILLRACE_CACHE=$cache cannot be created"
cache=$(cd "$cache" && pwd)

command -v python3 >/dev/null || fail "python3 is needed: apt-get install python3-venv"
# The packages have compiled parts, which fit one version of Python.
folder=$cache/python/$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ -d "$folder/cloudevents-$CLOUDEVENTS.dist-info" ] && [ -d "$folder/confluent_kafka-$CONFLUENT_KAFKA.dist-info" ]; then
    log "found in $folder"
    echo "$folder"
    exit 0
fi

# The files go to a temporary folder and are moved at the end, so an interrupted run leaves no incomplete folder.
partial=$(mktemp -d "$cache/python.partial.XXXXXX")
trap 'rm -rf "$partial"' EXIT
trap 'exit 130' INT TERM HUP
log "fetching cloudevents $CLOUDEVENTS and confluent-kafka $CONFLUENT_KAFKA into $folder"
"$repository/scripts/pip-target.sh" "$partial/packages" "cloudevents==$CLOUDEVENTS" "confluent-kafka==$CONFLUENT_KAFKA" ||
    fail "pip could not fetch the packages; its reason is above"
mkdir -p "$cache/python"
[ ! -e "$folder" ] || mv "$folder" "$partial/old"
# Another process may have fetched the same packages in the meantime. Then its folder is used.
mv -T "$partial/packages" "$folder" 2>/dev/null || [ -d "$folder/cloudevents-$CLOUDEVENTS.dist-info" ] ||
    fail "$folder cannot be created"
echo "$folder"
