#!/usr/bin/env bash
# Sees that .cache/bin/kustomize builds `deploy/`, and says which program it is.
#
# Taken is the first of: kustomize 5 on the PATH; kubectl with kustomize 5 inside; our own build of the
# version that kustomize/go.mod pins, by the Go on the PATH or by Debian's.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=.cache/bin/kustomize
pinned="$(sed -n 's#^require sigs.k8s.io/kustomize/kustomize/v5 v##p' tests/support/kustomize/go.mod)"

# Debian 12's kubectl carries kustomize 2, which reads only half of what deploy/ uses.
is_five() { [[ "$1" =~ v?5\.[0-9]+ ]]; }

wrap() { # a command that takes the folder as its last argument
    mkdir -p "$(dirname "$target")"
    printf '#!/bin/sh\n# build FOLDER\nshift\nexec %s "$@"\n' "$1" >"$target.new"
    chmod +x "$target.new"
    mv "$target.new" "$target"
}

works() { # builds the smallest thing that kustomize 2 cannot
    [ -x "$target" ] || return 1
    local probe
    probe=$(mktemp -d)
    cat >"$probe/kustomization.yaml" <<'END'
configMapGenerator:
  - name: probe
    literals: [a=b]
labels:
  - pairs: {probe: "yes"}
    includeTemplates: true
END
    "$target" build "$probe" 2>/dev/null | grep -q 'probe: "yes"'
    local result=$?
    rm -rf "$probe"
    return $result
}

find_one() {
    if command -v kustomize >/dev/null && is_five "$(kustomize version 2>/dev/null)"; then
        wrap "kustomize build"
        echo "kustomize on the PATH, $(kustomize version)"
    elif command -v kubectl >/dev/null &&
        is_five "$(kubectl version --client 2>/dev/null | sed -n 's/^Kustomize Version: //p')"; then
        wrap "kubectl kustomize"
        echo "kubectl's kustomize, $(kubectl version --client 2>/dev/null | sed -n 's/^Kustomize Version: //p')"
    else
        return 1
    fi
}

build_one() {
    if ! command -v go >/dev/null; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            echo "kustomize: installing Debian's Go to build it …" >&2
            apt-get update -qq >&2
            DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends golang-go >&2
        else
            echo "kustomize 5 is missing: install kustomize, kubectl 1.27 or newer, or Go 1.19 or newer" >&2
            return 1
        fi
    fi
    echo "kustomize: building $pinned with $(go version) …" >&2
    mkdir -p "$(dirname "$target")"
    local out="$PWD/$target"
    rm -f "$target"
    # Never another toolchain than the one at hand: it would have to be downloaded.
    (cd tests/support/kustomize && GOTOOLCHAIN=local GOFLAGS=-mod=readonly go build -buildvcs=false -o "$out" sigs.k8s.io/kustomize/kustomize/v5)
    echo "our build of kustomize $pinned"
}

if [ "${HANDOFF_KUSTOMIZE_BUILD:-}" = 1 ]; then
    build_one
elif works; then
    exit 0
else
    rm -f "$target"
    find_one || build_one
fi
works || { echo "kustomize: $target does not build" >&2; exit 1; }
