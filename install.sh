#!/usr/bin/env bash
# Installs Kube-OVN in the cluster of the current kubeconfig, or with --sandbox makes a cluster
# on this machine first. It may be repeated at any time, with the same environment, to change a
# setting or to upgrade.
set -euo pipefail
# shellcheck disable=SC2034
PROGRAM=install.sh
HOME_DIR=$(cd "$(dirname "$0")" && pwd)
for part in lib cidr settings render cluster sandbox; do
    # shellcheck source=/dev/null
    . "$HOME_DIR/packaging/install/$part.sh"
done

usage() {
    cat <<'TEXT'
Usage: [NAME=value ...] ./install.sh [OPTION]
  (none)               install in the cluster of the current kubeconfig
  --dry-run            print the manifests, change nothing (NODE_IPS=... without a cluster)
  --sandbox            make a Kubernetes cluster on this machine (root), install, show that it works
    --nodes N          with N nodes (3)
    --masters N        of which N are masters (1)
    --no-network       the bare cluster, without Kube-OVN
    --keep             leave a failed start as it is, to look at
  -h, --help

Settings, all by environment (name, default, meaning):
TEXT
    print_settings
}

MODE=cluster DRY_RUN=no SANDBOX_ARGS=()
parse_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --dry-run) DRY_RUN=yes ;;
            --sandbox) MODE=sandbox ;;
            --nodes | --masters)
                [[ ${2:-} =~ ^[1-9][0-9]?$ ]] || die "$1 wants a number from 1 to 99"
                SANDBOX_ARGS+=("$1" "$2"); shift ;;
            --nodes=* | --masters=*)
                [[ ${1#*=} =~ ^[1-9][0-9]?$ ]] || die "${1%%=*} wants a number from 1 to 99"
                SANDBOX_ARGS+=("${1%%=*}" "${1#*=}") ;;
            --no-network | --keep) SANDBOX_ARGS+=("$1") ;;
            --with-hybrid-dpdk | --dpdk-tag | --dpdk-tag=* | --dpdk-cpu | --dpdk-cpu=* | --dpdk-memory | --dpdk-memory=*)
                die "$1: DPDK is not supported by this version; leave it out" ;;
            *) die "unknown option $1 (see ./install.sh --help)" ;;
        esac
        shift
    done
    [ "$MODE" = sandbox ] || [ ${#SANDBOX_ARGS[@]} = 0 ] || die "${SANDBOX_ARGS[0]} goes with --sandbox"
}

apply() { # PART: applied as the only owner of its fields, so that a removed line goes too
    local text
    text=$(manifests "$1")
    k apply --server-side --force-conflicts --field-manager=kube-ovn-install -f - <<<"$text" >/dev/null ||
        die "the API server refused the manifests of $1, see above"
}

established() {
    ! k get crd -o jsonpath='{range .items[?(@.spec.group=="kubeovn.io")]}{.metadata.name}{" "}{.status.conditions[?(@.type=="Established")].status}{"\n"}{end}' | grep -qv ' True$'
}

# ENABLE_SSL: one certificate for all components, made here unless there is one.
make_tls_secret() {
    system get secret kube-ovn-tls >/dev/null 2>&1 && return
    command -v openssl >/dev/null || die "ENABLE_SSL=true needs openssl here, or a Secret kube-ovn-tls (cacert, cert, key) in kube-system"
    local dir
    dir=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$dir'" EXIT
    {
        openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj '/CN=ovn CA' -keyout "$dir/ca.key" -out "$dir/cacert.pem"
        openssl req -newkey rsa:2048 -nodes -subj /CN=ovn -keyout "$dir/key.pem" -out "$dir/req.pem"
        printf 'subjectAltName=DNS:ovn\n' >"$dir/ext"
        openssl x509 -req -days 3650 -in "$dir/req.pem" -CA "$dir/cacert.pem" -CAkey "$dir/ca.key" -CAcreateserial -extfile "$dir/ext" -out "$dir/cert.pem"
    } >"$dir/log" 2>&1 || die "openssl failed: $(tail -n 1 "$dir/log")"
    system create secret generic kube-ovn-tls --from-file=cacert="$dir/cacert.pem" --from-file=cert="$dir/cert.pem" --from-file=key="$dir/key.pem" >/dev/null
}

nodes_ready() {
    ! k get nodes -o jsonpath='{range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' | grep -qv '^True$'
}

# Pods that another network plugin attached have an address, but no allocation of ours. They are
# listed before the controller starts: it allocates for every pod that it finds.
restart_foreign_pods() { # LIST of `namespace name`
    local ns name restarted=0
    while read -r ns name; do
        [ -n "$name" ] || continue
        k -n "$ns" delete pod "$name" --wait=false >/dev/null && restarted=$((restarted + 1))
    done <<<"$1"
    [ $restarted = 0 ] || say "restarted $restarted pods that another network plugin had attached"
}

foreign_pods() {
    # shellcheck disable=SC2016
    k get pods -A -o go-template='{{range .items}}{{if and (not .spec.hostNetwork) .status.podIP (eq .spec.restartPolicy "Always")}}{{$ours := false}}{{range $key, $value := .metadata.annotations}}{{if eq $key "ovn.kubernetes.io/allocated"}}{{$ours = true}}{{end}}{{end}}{{if not $ours}}{{.metadata.namespace}} {{.metadata.name}}{{"\n"}}{{end}}{{end}}{{end}}'
}

# kubectl ko on this machine: the executable under that name, and the name by which kubectl asks it
# for completions. A package without a network has it; else it comes out of a pod.
install_plugin() {
    local dir=$KUBECTL_KO_DIR pod
    [ -n "$dir" ] || return 0
    if ! mkdir -p "$dir" 2>/dev/null || [ ! -w "$dir" ]; then
        say "note: $dir is not writable, so kubectl ko is not installed; run this as root, or set KUBECTL_KO_DIR"
        return 0
    fi
    if [ -x "$HOME_DIR/bin/kube-ovn" ]; then
        cp "$HOME_DIR/bin/kube-ovn" "$dir/kubectl-ko.new"
    else
        pod=$(system get pods -l app=kube-ovn-cni -o jsonpath='{.items[0].metadata.name}')
        system exec "$pod" -c cni-server -- cat /kube-ovn/kube-ovn >"$dir/kubectl-ko.new" ||
            { rm -f "$dir/kubectl-ko.new"; say "note: kubectl ko is not installed: the executable could not be copied out of $pod"; return 0; }
    fi
    chmod 755 "$dir/kubectl-ko.new"
    mv "$dir/kubectl-ko.new" "$dir/kubectl-ko"
    ln -sf kubectl-ko "$dir/kubectl_complete-ko"
    say "kubectl ko: $dir/kubectl-ko"
}

dry_run() {
    local part
    if [ -n "$NODE_IPS" ]; then MASTER_IPS=$NODE_IPS; count_masters
    else need_kubectl; find_masters; fi
    for part in crds rbac databases control pinger; do manifests "$part"; done
    [ "$ENABLE_WEBHOOK" = false ] || manifests webhook
}

install_in_cluster() {
    say "checking (image $IMAGE, pods $POD_CIDR, Services $SVC_CIDR, nodes $JOIN_CIDR)"
    check_version
    check_rights
    find_masters
    check_addresses
    say "masters: $MASTERS ($MASTER_IPS)"

    remember_settings "$GIVEN"
    # shellcheck disable=SC2086
    k label --overwrite nodes $MASTERS kube-ovn/role=master >/dev/null
    [ "$ENABLE_SSL" = false ] || make_tls_secret
    apply crds
    apply rbac
    # The account has its rights in kube-system only; upstream and older versions gave them everywhere.
    k delete clusterrolebinding ovn-ovs --ignore-not-found >/dev/null
    wait_until 60 established || die "the API server does not accept the custom resources after 60 s (kubectl get crd)"
    say "databases and Open vSwitch"
    apply databases
    await deployment ovn-central ovn-central
    await daemonset ovs-ovn ovs
    local foreign
    foreign=$(foreign_pods)
    say "controller and node agents"
    apply control
    await deployment kube-ovn-controller kube-ovn-controller
    await daemonset kube-ovn-cni kube-ovn-cni
    await deployment kube-ovn-monitor kube-ovn-monitor
    wait_until 60 nodes_ready || say "note: some nodes are not Ready yet (kubectl get nodes)"
    [ "$DEL_NON_HOST_NET_POD" = false ] || restart_foreign_pods "$foreign"
    if system get deployment coredns >/dev/null 2>&1; then
        DNS_APP=$(system get deployment coredns -o jsonpath='{.spec.template.metadata.labels.k8s-app}')
        wait_until "$TIMEOUT" ready deployment coredns ||
            { explain "k8s-app=$DNS_APP"; die "CoreDNS did not get ready on the new network in $TIMEOUT s, see above"; }
        say "coredns: ready"
    fi
    apply pinger
    await daemonset kube-ovn-pinger kube-ovn-pinger
    if [ "$ENABLE_WEBHOOK" = true ]; then
        apply webhook
        await deployment kube-ovn-webhook kube-ovn-webhook
    fi
    install_plugin
    say "Kube-OVN $VERSION is installed"
}

parse_arguments "$@"
if [ "$MODE" = sandbox ]; then
    run_sandbox
else
    if [ "$DRY_RUN" = no ]; then need_kubectl; recall_settings; fi
    GIVEN=$(given_settings)
    read_settings
    if [ "$DRY_RUN" = yes ]; then dry_run; else install_in_cluster; fi
fi
