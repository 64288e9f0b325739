# shellcheck shell=bash
# Shared by install.sh and cleanup.sh: messages and kubectl. Sourced, never run.

T0=$(date +%s)
KUBECTL=${KUBECTL:-kubectl}

# say TEXT: a progress line with the seconds since the start.
say() { printf '[%4ds] %s\n' "$(($(date +%s) - T0))" "$*" >&2; }
die() { printf '%s: %s\n' "$PROGRAM" "$*" >&2; exit 1; }

# Every call ends: an unreachable API server must not hang the script.
k() { "$KUBECTL" --request-timeout=30s "$@"; }
system() { k -n kube-system "$@"; }

need_kubectl() {
    command -v "$KUBECTL" >/dev/null || die "kubectl is not in PATH; install it, or name it in KUBECTL"
    local error
    error=$(k get --raw /readyz 2>&1 >/dev/null) ||
        die "kubectl cannot reach the cluster: ${error##*$'\n'} (is KUBECONFIG right?)"
}

# wait_until SECONDS COMMAND...: polls every second; fails when the time is over.
wait_until() {
    local end=$(($(date +%s) + $1)); shift
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt "$end" ] || return 1
        sleep 1
    done
}
