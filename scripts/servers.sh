#!/usr/bin/env bash
# Real brokers, and a server of S3, for tests and benchmarks, on this machine and for as long as they are needed.
#
#   servers.sh run COMMAND [ARGUMENT]...        start all servers, run the command, stop the servers
#   servers.sh start NAME FOLDER [PORT]         start one server (rabbitmq, kafka, redis or s3), print its URL
#   servers.sh stop FOLDER [--kill]             stop the server of that folder, with --kill as `kill -9` does
#
# `run` exports the URLs as MILLRACE_TEST_RABBITMQ_URL, MILLRACE_TEST_KAFKA_URL, MILLRACE_TEST_REDIS_URL and
# MILLRACE_TEST_S3_URL (the last is s3://BUCKET, with AWS_ENDPOINT and credentials beside it). If one of them is set already, `run` uses that server and starts none. A server keeps its data in FOLDER, also after `stop`. A later
# `start` in the same folder uses the same data, and the same port of 127.0.0.1 unless PORT is given.
#
# RabbitMQ, Redis, Java and Maven come from the distribution (rabbitmq-server, redis-server). Kafka's jars come from Maven
# Central into the folder kafka of MILLRACE_CACHE (default: .cache in this repository). The server of S3 is moto, from PyPI,
# in the folder s3 of the cache; it keeps its data in memory. If the user is root, apt-get
# installs missing packages. This script prints its progress on standard error.
#
# A folder FOLDER/tls adds listeners of Kafka with TLS: one on which clients present a certificate (SSL), and one on which they
# present the user and the password of the file `user` by SCRAM (SASL_SSL). The file `ports` has both ports, `keystore.pem` the
# key and the certificate for localhost, and `ca.crt` the authority.
#
# Redis syncs its file before each answer (appendfsync always). MILLRACE_REDIS_APPENDFSYNC=everysec is faster.
set -euo pipefail

KAFKA=4.1.0
MOTO=5.2.5
S3_BUCKET=millrace-test
READY_WITHIN_SECONDS=180

# Debian's wrapper in the path needs the user rabbitmq and the folders of the system. The wrapped program does not.
PATH=/usr/lib/rabbitmq/bin:$PATH

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
names=(rabbitmq kafka redis s3)

log() { echo "servers: $*" >&2; }
fail() { log "$*"; exit 1; }

variable_of() { echo "MILLRACE_TEST_${1^^}_URL"; }

url_of() {
    case $1 in
        rabbitmq) echo "rabbitmq://guest:guest@127.0.0.1:$2" ;;
        s3) echo "http://127.0.0.1:$2" ;;
        *) echo "$1://127.0.0.1:$2" ;;
    esac
}

# Makes sure that server $1 has the command $2; installs the packages $3 if it is missing.
need() {
    local server=$1 command=$2 packages=$3
    command -v "$command" >/dev/null && return
    local way_out="apt-get install $packages, or set $(variable_of "$server") to the URL of a server that runs"
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "$server needs the command $command, which is missing: $way_out"
    fi
    log "installing $packages, because the command $command is missing"
    # The installation must not start the service of the system. Debian consults this file before it starts one.
    local policy=/usr/sbin/policy-rc.d made_policy=
    [ -e "$policy" ] || made_policy=$policy
    # The subshell removes the file whenever it ends.
    (
        [ -z "$made_policy" ] || trap 'rm -f "$made_policy"' EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM HUP
        if [ -n "$made_policy" ]; then
            printf '#!/bin/sh\nexit 101\n' >"$policy"
            chmod +x "$policy"
        fi
        # shellcheck disable=SC2086 # One argument per package.
        apt_get install $packages || { apt_get update && apt_get install $packages; }
    ) || fail "apt-get could not install $packages; its reason is above; $way_out"
}

# Fails unless the command $2 of server $1, which has version $4, has version $3 or later.
at_least() {
    [ "${4:-0}" -ge "$3" ] || fail "$1 needs $2 $3 or later, and the version here is ${4:-unknown}: install a newer one \
(Debian 12 and Ubuntu 24.04 have one), or set $(variable_of "$1") to the URL of a server that runs"
}

apt_get() { DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends "$@" </dev/null >&2; }

# Whether a process listens on port $1.
answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Prints a free port, below the ports that the kernel gives to outgoing connections.
free_port() {
    local port
    for _ in {1..100}; do
        port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
        answers "$port" || { echo "$port"; return; }
    done
    fail "no free port was found between 20000 and 32000"
}

# Prints the folder of Kafka's jars. Fetches them first if they are missing.
kafka_jars() {
    local cache=${MILLRACE_CACHE:-$repository/.cache}
    mkdir -p "$cache/kafka" || fail "MILLRACE_CACHE=$cache cannot be created"
    cache=$(cd "$cache/kafka" && pwd)
    local jars=$cache/$KAFKA
    if [ ! -d "$jars" ]; then
        need kafka mvn maven
        log "fetching Apache Kafka $KAFKA from Maven Central (45 MB) into $jars"
        # The jars go to a temporary folder and are moved at the end, so an interrupted run leaves no incomplete folder.
        local partial
        partial=$(mktemp -d "$cache/partial.XXXXXX")
        if ! mvn --batch-mode --quiet -Dstyle.color=never --strict-checksums --file "$repository/scripts/kafka/pom.xml" \
            org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
            -Dkafka.version="$KAFKA" -DoutputDirectory="$partial/jars" -DincludeScope=runtime >&2; then
            rm -rf "$partial"
            fail "mvn could not fetch Apache Kafka $KAFKA; its reason is above; or set $(variable_of kafka)"
        fi
        # Another process may have fetched the same jars in the meantime. Then its folder is used.
        mv -T "$partial/jars" "$jars" 2>/dev/null || [ -d "$jars" ] || fail "$jars cannot be created"
        rm -rf "$partial"
    fi
    echo "$jars"
}

# Prints the folder of moto's packages. Fetches them first if they are missing.
s3_packages() {
    local cache=${MILLRACE_CACHE:-$repository/.cache}
    mkdir -p "$cache/s3" || fail "MILLRACE_CACHE=$cache cannot be created"
    cache=$(cd "$cache/s3" && pwd)
    # The packages have compiled parts, which fit one version of Python.
    local packages
    packages=$cache/$MOTO-$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [ ! -d "$packages" ]; then
        log "fetching moto $MOTO from PyPI (110 MB) into $packages"
        local partial
        partial=$(mktemp -d "$cache/partial.XXXXXX")
        if ! "$repository/scripts/pip-target.sh" "$partial/packages" "moto[s3]==$MOTO" flask flask-cors; then
            rm -rf "$partial"
            fail "pip could not fetch moto $MOTO; its reason is above; or set $(variable_of s3)"
        fi
        # Another process may have fetched the same packages in the meantime. Then its folder is used.
        mv -T "$partial/packages" "$packages" 2>/dev/null || [ -d "$packages" ] || fail "$packages cannot be created"
        rm -rf "$partial"
    fi
    echo "$packages"
}

# Starts a command in the background, with its output in $1/log, as the leader of a process group. Thus it can be killed
# with all its children, and Ctrl-C reaches the tests first. $1/pid holds the number of the group and its identity.
spawn() {
    local folder=$1
    shift
    setsid "$@" </dev/null >>"$folder/log" 2>&1 &
    echo "$! $(identity_of $!)" >"$folder/pid"
    # Without this, bash prints a message when the command ends.
    disown
}

spawn_rabbitmq() {
    local folder=$1 port=$2
    mkdir -p "$folder/home"
    : >"$folder/environment"
    echo "[]." >"$folder/plugins"
    {
        echo "listeners.tcp.local = 127.0.0.1:$port"
        echo "disk_free_limit.absolute = 100MB"
        echo "log.console = true"
        echo "log.console.level = info"
        echo "log.file = false"
    } >"$folder/rabbitmq.conf"
    # The node has its own name service, which ends with the process group. The default one would keep running.
    # shellcheck disable=SC2016 # The inner shell expands.
    ERL_EPMD_PORT=$(free_port) ERL_EPMD_ADDRESS=127.0.0.1 HOME=$folder/home \
        RABBITMQ_CONF_ENV_FILE=$folder/environment RABBITMQ_CONFIG_FILE=$folder/rabbitmq.conf \
        RABBITMQ_ENABLED_PLUGINS_FILE=$folder/plugins RABBITMQ_NODENAME=millrace@localhost \
        RABBITMQ_NODE_PORT=$port RABBITMQ_DIST_PORT=$(free_port) RABBITMQ_MNESIA_BASE=$folder/data \
        RABBITMQ_LOG_BASE=$folder RABBITMQ_LOG=info,-color RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}" \
        spawn "$folder" sh -c 'epmd -port "$ERL_EPMD_PORT" & exec rabbitmq-server'
}

spawn_kafka() {
    local folder=$1 port=$2 jars java
    jars=$(kafka_jars)
    # Options for a fast start rather than a high throughput. At level info, only the ready line is logged.
    java=(java -Xms256m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1
        -Dorg.slf4j.simpleLogger.showDateTime=true
        -Dorg.slf4j.simpleLogger.dateTimeFormat="yyyy-MM-dd HH:mm:ss.SSS"
        -Dorg.slf4j.simpleLogger.defaultLogLevel=warn
        -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info
        -cp "$jars/*")
    if [ ! -e "$folder/kafka.properties" ]; then
        local controller ports listeners= advertised= scram=()
        controller=$(free_port)
        if [ -d "$folder/tls" ]; then
            read -r -a ports <"$folder/tls/ports"
            listeners=,SSL://127.0.0.1:${ports[0]},SASL_SSL://127.0.0.1:${ports[1]}
            advertised=,SSL://localhost:${ports[0]},SASL_SSL://localhost:${ports[1]}
            scram=(--add-scram "SCRAM-SHA-512=[$(cat "$folder/tls/user")]")
        fi
        # One node that is broker and controller, with short time-outs, and small files for the many topics of the tests.
        cat >"$folder/kafka.properties" <<END
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller$listeners
advertised.listeners=PLAINTEXT://127.0.0.1:$port$advertised
log.dirs=$folder/data
log.segment.bytes=16777216
log.index.size.max.bytes=65536
log.cleaner.dedupe.buffer.size=2097152
auto.create.topics.enable=false
num.network.threads=2
num.io.threads=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=1000
END
        [ ! -d "$folder/tls" ] || cat >>"$folder/kafka.properties" <<END
ssl.keystore.type=PEM
ssl.keystore.location=$folder/tls/keystore.pem
ssl.truststore.type=PEM
ssl.truststore.location=$folder/tls/ca.crt
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL
listener.name.ssl.ssl.client.auth=required
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
END
        "${java[@]}" kafka.tools.StorageTool format --cluster-id AAAAAAAAAAAAAAAAAAAAAA \
            --config "$folder/kafka.properties" "${scram[@]}" >>"$folder/log" 2>&1 || fail_with_log kafka "$folder" "cannot format"
    fi
    spawn "$folder" "${java[@]}" kafka.Kafka "$folder/kafka.properties"
}

spawn_redis() {
    local folder=$1 port=$2
    mkdir -p "$folder/data"
    spawn "$folder" redis-server --bind 127.0.0.1 --port "$port" --dir "$folder/data" --save "" \
        --appendonly yes --appendfsync "${MILLRACE_REDIS_APPENDFSYNC:-always}" --maxmemory-policy noeviction
}

spawn_s3() {
    local folder=$1 port=$2 packages
    packages=$(s3_packages)
    PYTHONPATH=$packages spawn "$folder" python3 -c 'from moto.server import main; main()' -H 127.0.0.1 -p "$port"
}

# Creates the bucket of the tests in the server on port $1, and exports what a client of it needs.
export_s3() {
    local status
    exec 3<>"/dev/tcp/127.0.0.1/$1"
    printf 'PUT /%s HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n' "$S3_BUCKET" >&3
    read -r status <&3
    exec 3>&-
    case $status in *" 200 "*) ;; *) fail "s3: cannot create the bucket $S3_BUCKET: $status" ;; esac
    export AWS_ENDPOINT="http://127.0.0.1:$1" AWS_ALLOW_HTTP=true AWS_REGION=us-east-1 \
        AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
    export MILLRACE_TEST_S3_URL="s3://$S3_BUCKET"
}

# Prints the log line of server $1 that marks the end of its start.
ready_line_of() {
    case $1 in
        rabbitmq) echo "Server startup complete" ;;
        kafka) echo "Kafka Server started" ;;
        redis) echo "Ready to accept connections" ;;
        s3) echo "Running on http" ;;
    esac
}

# Installs the requirements of server $1. Kafka's jars are fetched here too, before any server runs.
prepare() {
    case $1 in
        rabbitmq) need rabbitmq rabbitmq-server rabbitmq-server; need rabbitmq epmd erlang-base ;;
        kafka)
            need kafka java default-jre-headless
            need kafka kcat kcat
            at_least kafka java 17 "$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)"
            kafka_jars >/dev/null
            ;;
        redis)
            need redis redis-server redis-server
            at_least redis redis-server 7 "$(redis-server --version | sed -n 's/.* v=\([0-9]*\).*/\1/p')"
            ;;
        s3) need s3 python3 "python3 python3-venv"; s3_packages >/dev/null ;;
        *) fail "there is no server $1: use one of ${names[*]}" ;;
    esac
}

# Starts server $1 with folder $2 and port $3. Does not wait until it serves.
launch() {
    local name=$1 folder=$2 port=$3
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd)
    [ ! -e "$folder/pid" ] || fail "$folder: a server was started there and not stopped"
    ! answers "$port" || fail "$name: port $port of 127.0.0.1 is in use"
    : >"$folder/log"
    "spawn_$name" "$folder" "$port"
}

fail_with_log() {
    log "$1: $3; the end of its log:"
    tail -n 40 "$2/log" | sed 's/^/    /' >&2
    exit 1
}

# Waits until server $1 in folder $2 serves on port $3.
await() {
    local name=$1 folder=$2 port=$3 line group since=$SECONDS
    line=$(ready_line_of "$name")
    group=$(group_of "$folder")
    until grep -q "$line" "$folder/log" && answers "$port"; do
        # Its children may still run.
        leads "$group" || { stop "$folder" KILL; fail_with_log "$name" "$folder" "it ended instead of serving"; }
        if [ $((SECONDS - since)) -ge "$READY_WITHIN_SECONDS" ]; then
            stop "$folder" KILL
            fail_with_log "$name" "$folder" "it does not serve after $READY_WITHIN_SECONDS s"
        fi
        sleep 0.1
    done
}

# Prints the identity of process $1: the boot of this machine and the start of the process. It differs from that of any
# other process with the same number.
identity_of() {
    local line fields
    { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 0
    read -r -a fields <<<"${line##*) }"
    echo "$(cat /proc/sys/kernel/random/boot_id) ${fields[19]}"
}

# Prints the process group of the server in folder $1. Prints nothing if the server has ended: then its number may belong to
# another process.
group_of() {
    local group boot started now
    read -r group boot started <"$1/pid" || true
    now=$(identity_of "$group")
    # The kernel does not reuse the number while a process of the group exists.
    if [ "$now" = "$boot $started" ] || { [ -z "$now" ] && [ "$boot" = "$(cat /proc/sys/kernel/random/boot_id)" ]; }; then
        echo "$group"
    fi
}

# Whether process $1 with state $2 has ended and only has not been waited for (state Z). After `kill -9` the first thread of
# a process may have this state while its other threads still end, and the process keeps its ports.
has_ended() {
    local threads=("/proc/$1/task"/*)
    [ "$2" = Z ] && [ ${#threads[@]} -le 1 ]
}

# Whether process $1 runs.
leads() {
    local line fields
    { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
    # The fields after the name are state, parent and group. The name may contain any character.
    read -r -a fields <<<"${line##*) }"
    ! has_ended "$1" "${fields[0]}"
}

# Whether a process of group $1 runs.
is_alive() {
    local process line fields
    for process in /proc/[0-9]*; do
        { read -r line <"$process/stat"; } 2>/dev/null || continue
        read -r -a fields <<<"${line##*) }"
        [ "${fields[2]}" != "$1" ] || has_ended "${process#/proc/}" "${fields[0]}" || return 0
    done
    return 1
}

# Stops the server in folder $1 with signal $2, and waits for its end.
stop() {
    local folder=$1 signal=$2 group since=$SECONDS
    [ -e "$folder/pid" ] || return 0
    group=$(group_of "$folder")
    [ -n "$group" ] || { rm -f "$folder/pid"; return 0; }
    if [ "$signal" = TERM ]; then
        # The leader stops its children itself.
        kill -TERM "$group" 2>/dev/null || true
        while leads "$group" && [ $((SECONDS - since)) -lt 30 ]; do sleep 0.1; done
    fi
    kill -KILL -- "-$group" 2>/dev/null || true
    while is_alive "$group"; do sleep 0.05; done
    rm -f "$folder/pid"
}

run() {
    local name variable started=()
    for name in "${names[@]}"; do
        variable=$(variable_of "$name")
        if [ -n "${!variable:-}" ]; then
            log "$name: using $variable"
        else
            prepare "$name"
            started+=("$name")
        fi
    done
    work=$(mktemp -d)
    command_pid=
    trap finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    local ports=() port
    for name in "${started[@]}"; do
        port=$(free_port)
        ports+=("$port")
        launch "$name" "$work/$name" "$port"
    done
    for index in "${!started[@]}"; do
        name=${started[$index]} port=${ports[$index]}
        await "$name" "$work/$name" "$port"
        variable=$(variable_of "$name")
        if [ "$name" = s3 ]; then export_s3 "$port"; else export "$variable=$(url_of "$name" "$port")"; fi
        log "$name: $variable=${!variable}"
    done
    # The command runs in the background, so that this script handles signals meanwhile, but reads the terminal's input. It
    # leads a process group, so that its children can be stopped too.
    setsid "$@" <&0 &
    command_pid=$!
    local status=0
    wait "$command_pid" || status=$?
    command_pid=
    exit "$status"
}

finish() {
    local folder since=$SECONDS
    # A second Ctrl-C must not interrupt the cleanup.
    trap '' INT TERM HUP
    if [ -n "$command_pid" ]; then
        # `wait` is not used here: bash can hang in a `wait` after one that a signal interrupted.
        kill -TERM -- "-$command_pid" 2>/dev/null || true
        while is_alive "$command_pid" && [ $((SECONDS - since)) -lt 10 ]; do sleep 0.1; done
        kill -KILL -- "-$command_pid" 2>/dev/null || true
    fi
    for folder in "$work"/*/; do
        [ ! -d "$folder" ] || stop "${folder%/}" KILL
    done
    rm -rf "$work"
}

usage() { sed -n '2,/^set -/{s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2; }

case ${1:-} in
    run)
        [ $# -ge 2 ] || usage
        shift
        run "$@"
        ;;
    start)
        case $# in 3 | 4) ;; *) usage ;; esac
        prepare "$2"
        mkdir -p "$3"
        port=${4:-$(cat "$3/port" 2>/dev/null || free_port)}
        echo "$port" >"$3/port"
        launch "$2" "$3" "$port"
        await "$2" "$3" "$port"
        url_of "$2" "$port"
        ;;
    stop)
        case "$#:${3:-}" in
            2:) stop "$2" TERM ;;
            3:--kill) stop "$2" KILL ;;
            *) usage ;;
        esac
        ;;
    *) usage ;;
esac
