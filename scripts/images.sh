#!/usr/bin/env bash
# Builds the images of deploy/Containerfile without a registry, and runs them.
#
#   images.sh PROGRAM [PLAIN]
#
# PROGRAM is millrace with libtorch, as `make build` builds it. PLAIN is the one without libtorch. Unless given, it is built in
# the folder target-plain of the cache. The base is a root file system of Debian 12 by mmdebstrap, so this needs Debian 12.
# apt-get installs buildah, podman, runc and mmdebstrap if they are missing.
#
# The test runs gateway, scaler and worker beside a Redis of this machine, read-only, without capabilities, as user 65532 and with
# a limit of memory. 360 images of digits must be answered, 99 % of them right, also while one worker is stopped and another one
# takes over. Every container must end with exit code 0 after SIGTERM. Then the same with the image `all`.
#
# The images are in a store of their own, the folder images/storage of the cache:
# `podman --root FOLDER push localhost/millrace-gateway:VERSION REGISTRY/…` copies one to a registry.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

log() { echo "images: $*"; }
fail() { echo "images: $*" >&2; exit 1; }

case $# in 1 | 2) ;; *) fail "usage: images.sh PROGRAM [PLAIN]" ;; esac
program=$1 plain=${2:-}
for file in "$@"; do [ -x "$file" ] || fail "$file does not exist; run make build"; done
[ "$(id -u)" = 0 ] || fail "root is needed, for mmdebstrap and buildah's chroot"
packages=(buildah podman runc netavark mmdebstrap curl)
commands=(buildah podman runc mmdebstrap curl)
for command in "${commands[@]}"; do
    if ! command -v "$command" >/dev/null; then
        log "installing ${packages[*]}"
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${packages[@]}"; } >&2
        break
    fi
done

cache=${MILLRACE_CACHE:-$PWD/.cache}/images
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
gateway=http://127.0.0.1:18080
work=$(mktemp -d)
containers=()
too_big=()

# crun refuses cgroups in hybrid mode. The default limits may be above those of this machine.
cat >"$work/containers.conf" <<'EOF'
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
EOF
printf '[storage]\ndriver = "overlay"\ngraphroot = "%s"\nrunroot = "%s"\n' "$cache/storage" "/run/millrace-images" >"$work/storage.conf"
export CONTAINERS_CONF=$work/containers.conf CONTAINERS_STORAGE_CONF=$work/storage.conf BUILDAH_ISOLATION=chroot

finish() {
    local status=$?
    for name in "${containers[@]}"; do
        podman container exists "$name" || continue
        if [ "$status" != 0 ]; then podman logs --tail 20 "$name" 2>&1 | sed "s/^/$name: /" >&2 || true; fi
        podman rm --force --time 1 "$name" >/dev/null 2>&1 || true
    done
    [ ! -d "$work/redis" ] || scripts/servers.sh stop "$work/redis" || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

base() {
    local tar=$cache/bookworm.tar
    if [ ! -e "$tar" ]; then
        log "making a root file system of Debian 12 (2 minutes, once)"
        local sources=/etc/apt/sources.list.d/debian.sources
        [ -e "$sources" ] || sources=/etc/apt/sources.list
        mmdebstrap --quiet --mode=root --variant=minbase --include=ca-certificates bookworm "$tar.partial.tar" - <"$sources"
        mv "$tar.partial.tar" "$tar"
    fi
    printf 'FROM scratch\nADD bookworm.tar /\n' >"$work/base.Containerfile"
    # Unchanged layers are taken from buildah's store.
    buildah bud --quiet --layers --file "$work/base.Containerfile" --tag localhost/millrace-base "$cache" >/dev/null
}

programs() {
    if [ -z "$plain" ]; then
        log "building the program without libtorch"
        CARGO_TARGET_DIR=$cache/../target-plain cargo build --release --locked --bin millrace >&2
        plain=$cache/../target-plain/release/millrace
    fi
    LIBTORCH=$(scripts/libtorch.sh) deploy/pack.sh "$work/programs" "$plain" "$program"
    printf 'FROM localhost/millrace-base\nCOPY programs /programs\n' >"$work/programs.Containerfile"
    buildah bud --quiet --pull-never --file "$work/programs.Containerfile" --tag localhost/millrace-programs "$work" >/dev/null
}

build() {
    local target
    for target in gateway scaler worker all; do
        buildah bud --quiet --layers --pull-never --file deploy/Containerfile --target "$target" \
            --build-arg RUST=localhost/millrace-programs --build-arg BASE=localhost/millrace-base --build-arg VERSION="$version" \
            --tag "localhost/millrace-$target:$version" . >/dev/null
        local bytes
        bytes=$(podman image inspect --format '{{.Size}}' "localhost/millrace-$target:$version")
        log "millrace-$target: $((bytes / 1000000)) MB"
        case $target in
            gateway | scaler) [ "$bytes" -lt 60000000 ] || too_big+=("millrace-$target has $bytes bytes") ;;
        esac
    done
}

# Removes what only the build needed.
tidy() {
    podman rmi --force localhost/millrace-programs >/dev/null
    podman image prune --force >/dev/null
}

# Runs image $2 as container $1 with memory $3, and waits until URL $4 answers. The other arguments are podman's, and after `--`
# the container's.
start() {
    local name=millrace-test-$1 image=$2 memory=$3 url=$4 since options=()
    shift 4
    while [ $# -gt 0 ] && [ "$1" != -- ]; do options+=("$1"); shift; done
    [ $# = 0 ] || shift
    podman rm --force "$name" >/dev/null 2>&1 || true
    containers+=("$name")
    since=$(date +%s%N)
    podman run --detach --name "$name" --network host --read-only --read-only-tmpfs=false --tmpfs /tmp:size=64m --cap-drop all \
        --security-opt no-new-privileges --user 65532:65532 --memory "$memory" --pids-limit 200 \
        "${options[@]}" "localhost/millrace-$image:$version" "$@" >/dev/null
    until curl --silent --fail --output /dev/null "$url"; do
        [ "$(podman inspect --format '{{.State.Running}}' "$name")" = true ] || fail "$name has ended"
        [ $(($(date +%s%N) - since)) -lt 120000000000 ] || fail "$name is not ready within 120 s"
        sleep 0.05
    done
    log "$name: ready $((($(date +%s%N) - since) / 1000000)) ms after podman run"
}

# Stops a container with SIGTERM, which must be enough.
stop() {
    local name=millrace-test-$1 since
    since=$(date +%s%N)
    podman kill --signal TERM "$name" >/dev/null
    local code
    code=$(timeout 30 podman wait "$name") || fail "$name still runs 30 s after SIGTERM"
    [ "$code" = 0 ] || fail "$name ended with exit code $code after SIGTERM"
    log "$name: exit code 0, $((($(date +%s%N) - since) / 1000000)) ms after SIGTERM"
}

# Submits the images of digits $1 times. All must succeed, and 99 % of them must be right.
submit() {
    local rounds=() round
    for ((round = 0; round < $1; round++)); do rounds+=(models/digits/held-out); done
    "$program" submit --gateway "$gateway" --pool digits --truth-from-name --rows 0 --concurrency 32 "${rounds[@]}" >"$work/submitted" ||
        fail "submit failed: $(cat "$work/submitted")"
    tail -2 "$work/submitted"
    grep -q "$(($1 * 360)) jobs: $(($1 * 360)) succeeded" "$work/submitted" || fail "jobs are lost"
    grep -qE '^accuracy: (99|100)' "$work/submitted" || fail "the answers are wrong"
}

services() {
    local redis
    redis=$(scripts/servers.sh start redis "$work/redis")
    mkdir -m 1777 "$work/blobs"
    cat >"$work/millrace.yaml" <<'EOF'
blobs: { folder: /blobs }
gateway: { listen: 127.0.0.1:18080 }
scaler: { listen: 127.0.0.1:19090 }
telemetry: { format: json }
pools:
  digits: { model: models/digits/1, threads: 1 }
EOF
    chmod 755 "$work"
    chmod 644 "$work/millrace.yaml"
    local common=(--env "MILLRACE__BROKER=$redis" --env MILLRACE_CONFIG=/etc/millrace/millrace.yaml
        --volume "$work/millrace.yaml:/etc/millrace/millrace.yaml:ro" --volume "$work/blobs:/blobs")
    start gateway gateway 256m "$gateway/readyz" "${common[@]}"
    start scaler scaler 128m http://127.0.0.1:19091/readyz "${common[@]}" -- scaler --admin 127.0.0.1:19091
    start worker worker 2g http://127.0.0.1:19092/readyz "${common[@]}" -- worker --pool digits --admin 127.0.0.1:19092
    submit 1
    # A worker is stopped under load. Its jobs run in the next one.
    submit 10 &
    local submitting=$!
    until [ "$(running)" -gt 500 ]; do sleep 0.05; done
    stop worker
    start worker-2 worker 2g http://127.0.0.1:19092/readyz "${common[@]}" -- worker --pool digits --admin 127.0.0.1:19092
    wait "$submitting" || fail "a stopped worker lost jobs"
    stop worker-2
    stop scaler
    stop gateway
}

# The number of jobs that the worker has ended.
running() {
    curl --silent http://127.0.0.1:19092/metrics | awk '/^millrace_worker_jobs_total\{.*succeeded/ { n += $2 } END { print n + 0 }'
}

all() {
    podman volume rm --force millrace-test >/dev/null 2>&1 || true
    start all all 2g "$gateway/readyz" --volume millrace-test:/data --env MILLRACE__GATEWAY__LISTEN=127.0.0.1:18080 \
        --env MILLRACE__SCALER__LISTEN=127.0.0.1:19090
    submit 1
    stop all
    podman rm millrace-test-all >/dev/null
    podman volume rm millrace-test >/dev/null
}

base
programs
build
tidy
services
all
[ ${#too_big[@]} = 0 ] || fail "at most 60 MB are allowed: ${too_big[*]}"
log "all images ran"
