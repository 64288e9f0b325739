# shellcheck shell=bash disable=SC2034
# Shared by the programs of this folder: paths, names, addresses, messages. Sourced, never run.
#
# Everything a sandbox makes on the host carries its id, so that several sandboxes can live
# side by side and `cluster down` knows what is its own:
#   $SANDBOX_DIR                 state: run/ (pid files, logs), pki/, nodes/ (disks), kubeconfig
#   $SANDBOX_CACHE               downloads and builds; shared, survives `cluster down`
#   cgroup  kube-ovn-sandbox-ID  in every hierarchy
#   veth    kos-ID               host end of the link into the fabric
#   environment KUBE_OVN_SANDBOX=ID/NODE   every process outside a node's pid namespace
# Namespaces are held by processes, not by files under /run/netns, and all mounts lie in the
# nodes' own mount namespaces: when the processes end, all of it is gone.

set -euo pipefail
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

SANDBOX_HOME=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# One spelling for one folder: the id follows from it.
SANDBOX_DIR=$(realpath -ms "${SANDBOX_DIR:-/var/lib/kube-ovn-sandbox}")
SANDBOX_CACHE=${SANDBOX_CACHE:-/var/cache/kube-ovn-sandbox}
SANDBOX_ID=${SANDBOX_ID:-$(printf %s "$SANDBOX_DIR" | sha256sum | cut -c1-6)}
export SANDBOX_DIR SANDBOX_CACHE SANDBOX_ID

RUN=$SANDBOX_DIR/run
PKI=$SANDBOX_DIR/pki
REAPER=$SANDBOX_CACHE/reaper
# Trixie's: Debian 12's static busybox crashes in name resolution.
BUSYBOX=$SANDBOX_CACHE/node-rootfs/usr/bin/busybox
CGROUP=kube-ovn-sandbox-$SANDBOX_ID
# As containerd spells names without a host; the part before the slash is what pods write.
PAUSE_IMAGE=docker.io/kube-ovn-sandbox/pause:1
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
    (
        flock -n 9 || { say "waiting for another run that makes: $name"; flock 9; }
        "$@"
    ) 9>"$SANDBOX_CACHE/.lock-$name"
}

# detached COMMAND...: becomes the command, without the descriptors that were inherited: a lock
# that the caller's caller holds would be held as long as the node lives.
detached() {
    local fd
    for fd in /proc/self/fd/*; do
        fd=${fd##*/}
        [ "$fd" -le 2 ] || eval "exec $fd>&-"
    done
    exec "$@"
}

# key_of WORD|FILE...: short hash of files' content and of the words that are not files.
key_of() {
    local a
    for a in "$@"; do if [ -f "$a" ]; then cat "$a"; else printf '%s\n' "$a"; fi; done | sha256sum | cut -c1-16
}

# is_ours PID [NODE]: the process belongs to this sandbox (a pid file may be older than a
# reboot, and its number may be another's by now).
is_ours() {
    grep -qz "^KUBE_OVN_SANDBOX=$SANDBOX_ID/${2:-.*}\$" "/proc/$1/environ" 2>/dev/null
}

# init_pid NODE: prints the pid of a running node's process 1 (or the fabric's); fails if off.
init_pid() {
    local pid
    read -r pid 2>/dev/null <"$RUN/$1/init.pid" && is_ours "$pid" "$1" && echo "$pid"
}

# nodes: the names of the sandbox's nodes, running or not.
nodes() { for n in "$SANDBOX_DIR"/nodes/*/; do [ -d "$n" ] && basename "$n"; done | sort -V; }

# in_fabric COMMAND...: runs it in the fabric's network namespace.
in_fabric() { nsenter --net="/proc/$(init_pid fabric)/ns/net" "$@"; }

# remove_cgroups NAME: the folder NAME and all below it, in every hierarchy.
remove_cgroups() {
    local c
    for c in /sys/fs/cgroup/*/"$1" /sys/fs/cgroup/"$1"; do
        [ ! -d "$c" ] || find "$c" -depth -type d -exec rmdir {} + 2>/dev/null || true
        [ ! -d "$c" ] || return 1
    done
}
