#!/usr/bin/env bash
# What the tests' real parts need on this machine: a Postgres server, Java, Kafka's jars, nginx,
# a browser, and cargo for the native relay.
#
# Quick when all is there. As root with apt it installs what is missing; elsewhere it says what to install
# and fails. Two of it at once wait for each other. Usage: install.sh [PYTHON]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
python=${1:-python3}
[[ $python == */* && $python != /* ]] && python=$OLDPWD/$python
cache=${HANDOFF_CACHE:-$HOME/.cache/handoff}
kafka=$cache/kafka-$(sha256sum < kafka/pom.xml | cut -c1-16)

java_command() {
    if [[ -n ${JAVA_HOME:-} ]]; then echo "$JAVA_HOME/bin/java"; else echo java; fi
}

has_java() {
    local major
    major=$("$(java_command)" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -1) || return 1
    [[ -n $major ]] && ((major >= 17))
}

has_postgres() {
    compgen -G '/usr/lib/postgresql/*/bin/initdb' > /dev/null || command -v initdb > /dev/null
}

# Each prints the Debian packages that bring what is missing.
missing_postgres() {
    [[ -n ${HANDOFF_TEST_POSTGRES:-} ]] || has_postgres || echo postgresql
}

missing_kafka() {
    [[ -f $kafka/complete ]] && has_java && return
    has_java || echo default-jre-headless
    [[ -f $kafka/complete ]] || command -v mvn > /dev/null || echo maven
}

has_nginx() { [[ -x /usr/sbin/nginx ]] || command -v nginx > /dev/null; }

has_browser() { command -v chromium > /dev/null || [[ -n ${HANDOFF_TEST_BROWSER:-} ]]; }

# Debian 12's own cargo is too old for the native relay; this is the one that it builds browsers with.
has_cargo() {
    [[ ${HANDOFF_RELAY_NATIVE:-} == 0 ]] || { command -v cc > /dev/null &&
        { command -v cargo > /dev/null || [[ -x ${CARGO_HOME:-$HOME/.cargo}/bin/cargo ]]; }; }
}

get_always() {
    local missing=()
    has_cargo || missing+=("$(apt-cache show cargo-web > /dev/null 2>&1 && echo cargo-web || echo cargo)" gcc libc6-dev)
    has_nginx || missing+=(nginx-light)
    has_browser || missing+=(chromium fonts-dejavu-core)
    ((${#missing[@]})) || return 0
    if [[ $(id -u) == 0 ]] && command -v apt-get > /dev/null; then
        install_packages "${missing[@]}"
    else
        echo "The tests run the gateway's configuration in a real nginx, the web interface in a real" >&2
        echo "browser, and the relay in Rust. Install: ${missing[*]} (or point HANDOFF_TEST_BROWSER at a" >&2
        echo "Chromium; HANDOFF_RELAY_NATIVE=0 does without the last)." >&2
        exit 1
    fi
}

install_packages() {
    echo "installing for the tests: $*"
    export DEBIAN_FRONTEND=noninteractive
    # Debian would make and start a cluster on the usual port; the tests start their own.
    if [[ " $* " == *" postgresql "* && ! -e /etc/postgresql-common/createcluster.conf ]]; then
        mkdir -p /etc/postgresql-common
        echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf
    fi
    # The lists that are there are often good enough, and always if the mirror is away.
    apt install "$@" > /dev/null 2>&1 && return
    apt update > /dev/null
    apt install "$@" > /dev/null
}

# apt-get, which waits for another one on this machine instead of failing on its locks. Its own option
# does so for dpkg's lock only.
apt() {
    local errors tries=60
    while ! errors=$(apt-get -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold \
        -qq -y --no-install-recommends "$@" 2>&1 > /dev/null); do
        if [[ $errors != *"Could not get lock"* ]] || ((--tries == 0)); then
            echo "$errors" >&2
            return 1
        fi
        sleep 5
    done
}

get_kafka() {
    echo "getting Kafka's jars …"
    rm -rf "$kafka" "$kafka.partial"
    mkdir -p "$kafka.partial"
    mvn -q -B -ntp -f kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime \
        -DoutputDirectory="$kafka.partial/jars"
    mv "$kafka.partial" "$kafka"
    prepare_kafka
    touch "$kafka/complete"
}

# A formatted storage folder for brokers to start from, and an archive of the classes that a broker
# loads: both only save time, three seconds of CPU in each start.
prepare_kafka() {
    local scratch data classpath
    scratch=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$scratch'" RETURN
    data=$scratch/data
    mkdir "$data"
    classpath=$(printf '%s\n' "$kafka"/jars/*.jar | LC_ALL=C sort | paste -sd:)
    cat > "$scratch/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:1
listeners=CLIENT://127.0.0.1:0,CONTROLLER://127.0.0.1:1
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=CLIENT
controller.listener.names=CONTROLLER
log.dirs=$data
PROPERTIES
    local options=(-Xmx256m "-Dlog4j2.configurationFile=$PWD/kafka/log4j2.properties" -cp "$classpath")
    "$(java_command)" "${options[@]}" kafka.tools.StorageTool format \
        --cluster-id AAAAAAAAAAAAAAAAAAAAAA --config "$scratch/server.properties" > /dev/null
    cp -r "$data" "$kafka/formatted"
    (cd .. && "$python" -m support.parts.archive "$kafka/classes.jsa") || true
}

enough() { [[ -z "$(missing_postgres)$(missing_kafka)" ]] && { [[ -f $kafka/complete ]] || given; }; }
given() { [[ -n ${HANDOFF_TEST_KAFKA:-} && -n ${HANDOFF_TEST_POSTGRES:-} ]]; }

main() {
    get_always
    given && exit 0
    enough && exit 0
    mkdir -p "$cache"
    exec 9> "$cache/.install.lock"
    flock 9
    enough && exit 0
    local packages
    mapfile -t packages < <(missing_postgres; missing_kafka)
    if ((${#packages[@]})); then
        if [[ $(id -u) == 0 ]] && command -v apt-get > /dev/null; then
            install_packages "${packages[@]}"
        elif (cd .. && "$python" -m support.parts.containers); then
            exit 0 # Docker has both images
        else
            echo "The tests run a real Kafka and a real Postgres. Start Docker, or install: ${packages[*]}" >&2
            echo "(Debian's names; Java 17 or newer). Or point HANDOFF_TEST_KAFKA (host:port) and" >&2
            echo "HANDOFF_TEST_POSTGRES (postgresql://user:password@host:port) at running ones." >&2
            exit 1
        fi
    fi
    [[ -f $kafka/complete ]] || get_kafka
}
main
