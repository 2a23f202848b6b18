# Shared by the scripts of this folder; sourced, not run.
# shellcheck shell=bash

AIRGAP_HOME=${AIRGAP_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/handoff-airgap}
# shellcheck disable=SC2034  # used by those that source this
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$AIRGAP_HOME"

fail() {
    echo "$*" >&2
    exit 1
}

# SUITE: the lines of a sources.list for it, from the mirrors that this machine takes its own Debian
# from (with its security updates, where it takes those).
sources() {
    # apt's own view, whatever the format its sources are written in.
    # shellcheck disable=SC2016  # apt expands these
    apt-get indextargets --format '$(SITE) $(RELEASE)' 'Created-By: Packages' 'Component: main' |
        awk -v suite="$1" '$2 ~ /^bookworm/ { sub(/^bookworm/, suite, $2); print "deb", $1, $2, "main" }' |
        sort --unique | grep . || fail "apt names no mirror of Debian 12"
}

# The mirror of the release itself.
mirror() { sources bookworm | awk '$3 == "bookworm" { print $2; exit }'; }

docker_here() {
    DOCKER_HOST=unix://$AIRGAP_HOME/docker.sock DOCKER_CONFIG=$AIRGAP_HOME/config \
        "$AIRGAP_HOME/bin/docker" "$@"
}
