# shellcheck shell=bash disable=SC2034
# Shared by the programs of this folder: paths, names, addresses, messages. Sourced, never run.
#
# Everything a sandbox makes on the host carries its id, so that several sandboxes can live
# side by side and `cluster down` knows what is its own:
#   $SANDBOX_DIR                 state: run/ (pid files), log/, pki/, nodes/, kubeconfig
#   $SANDBOX_CACHE               downloads and builds; shared, survives `cluster down`
#   cgroup  kube-ovn-sandbox-ID  in every hierarchy
#   veth    kos-ID               host end of the link into the fabric
# Network namespaces are held by processes (pid files), not by files under /run/netns.

set -euo pipefail

SANDBOX_HOME=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SANDBOX_DIR=${SANDBOX_DIR:-/var/lib/kube-ovn-sandbox}
SANDBOX_CACHE=${SANDBOX_CACHE:-/var/cache/kube-ovn-sandbox}
SANDBOX_ID=${SANDBOX_ID:-$(printf %s "$SANDBOX_DIR" | sha256sum | cut -c1-6)}
export SANDBOX_DIR SANDBOX_CACHE SANDBOX_ID

RUN=$SANDBOX_DIR/run
LOG=$SANDBOX_DIR/log
PKI=$SANDBOX_DIR/pki
KUBE_BIN=$SANDBOX_CACHE/kubernetes/bin

die() { printf 'sandbox: %s\n' "$*" >&2; exit 1; }

# say TEXT: a progress line with the seconds since the command began.
SANDBOX_T0=${SANDBOX_T0:-$(date +%s)}
export SANDBOX_T0
say() { printf '[%4ds] %s\n' "$(($(date +%s) - SANDBOX_T0))" "$*" >&2; }

need_root() { [ "$(id -u)" = 0 ] || die "needs root (namespaces, mounts and cgroups are made); run it with sudo"; }

# wait_for SECONDS COMMAND...: polls every 0.1 s; fails when the time is over.
wait_for() {
    local end=$(($(date +%s) + $1)); shift
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt "$end" ] || return 1
        sleep 0.1
    done
}

# with_lock NAME COMMAND...: one builder of a cache entry at a time, over all sandboxes.
with_lock() {
    local name=$1; shift
    mkdir -p "$SANDBOX_CACHE"
    ( flock 9; "$@" ) 9>"$SANDBOX_CACHE/.lock-$name"
}

# key_of WORD|FILE...: short hash of files' content and of the words that are not files.
key_of() {
    local a
    for a in "$@"; do if [ -f "$a" ]; then cat "$a"; else printf '%s\n' "$a"; fi; done | sha256sum | cut -c1-16
}
