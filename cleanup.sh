#!/usr/bin/env bash
# Removes Kube-OVN from the cluster of the current kubeconfig, and everything it left on the nodes.
# Every wait ends: it needs no working controller. It may be repeated.
set -euo pipefail
# shellcheck disable=SC2034
PROGRAM=cleanup.sh
HOME_DIR=$(cd "$(dirname "$0")" && pwd)
for part in lib cidr settings render cluster; do
    # shellcheck source=/dev/null
    . "$HOME_DIR/packaging/install/$part.sh"
done

usage() {
    cat <<'TEXT'
Usage: ./cleanup.sh [--sandbox]
  (none)       remove Kube-OVN from the cluster of the current kubeconfig: workloads, custom
               resources, marks on nodes, namespaces and pods; OVS bridges, rules and files on nodes
  --sandbox    remove the cluster that ./install.sh --sandbox made on this machine (root)
The settings of install.sh that name folders (OVN_DIR, LOG_DIR, CNI_CONF_DIR ...) and IMAGE count.
TEXT
}

NOTES=0
note() { say "note: $*"; NOTES=$((NOTES + 1)); }

# Provider prefix is any: `ovn`, or `<nad>.<namespace>.ovn`.
MARKS='^(.+\.kubernetes\.io/(allocated|routed|ip_address|mac_address|cidr|gateway|ip_pool|logical_switch|logical_router|vlan_id|provider_network|pod_nic_type|port_security|security_groups|exclude_ips|private|allow|chassis|port_name|network_type|vip|eip|snat|u2o_interconnection)|ovn\.kubernetes\.io/.+|kube-ovn/role|.+\.provider-network\.kubernetes\.io/(ready|mtu|interface|exclude|vlan))$'

gone() { ! system get pods -l "$1" -o name 2>/dev/null | grep -q .; }

remove_workload() { # KIND/NAME SELECTOR SECONDS
    system delete "$1" --ignore-not-found --wait=false >/dev/null || note "$1 resists"
    wait_until "$3" gone "$2" || {
        system delete pods -l "$2" --grace-period=0 --force --wait=false >/dev/null 2>&1 || true
        wait_until 20 gone "$2" || note "pods with $2 resist"
    }
}

kinds() { k get crd -o jsonpath='{range .items[?(@.spec.group=="kubeovn.io")]}{.metadata.name}{"\n"}{end}'; }

# Objects have finalizers of a controller that is gone by now.
remove_objects() {
    local crd ns name
    for crd in $(kinds); do
        k delete "$crd" --all -A --wait=false >/dev/null 2>&1 || true
        while read -r ns name; do
            [ -n "$name" ] || continue
            # shellcheck disable=SC2046
            k patch "$crd" "$name" $([ "$ns" = - ] || echo "-n $ns") --type=merge -p '{"metadata":{"finalizers":null}}' >/dev/null 2>&1 || true
        done < <(k get "$crd" -A -o go-template='{{range .items}}{{if .metadata.finalizers}}{{or .metadata.namespace "-"}} {{.metadata.name}}{{"\n"}}{{end}}{{end}}' 2>/dev/null)
    done
    # shellcheck disable=SC2046
    [ -z "$(kinds)" ] || k delete crd $(kinds) --wait=false >/dev/null
    wait_until 60 no_kinds || note "custom resources resist: $(kinds | xargs)"
}
no_kinds() { [ -z "$(kinds)" ]; }

# remove_marks WHAT VERB: annotations or labels of ours on all objects of a kind.
remove_marks() { # KIND annotations|labels
    local ns name keys key verb=annotate
    local -a args
    [ "$2" = annotations ] || verb=label
    # shellcheck disable=SC2016
    while read -r ns name keys; do
        args=()
        for key in $keys; do [[ ! $key =~ $MARKS ]] || args+=("$key-"); done
        [ ${#args[@]} -gt 0 ] || continue
        [ "$ns" = - ] || args+=(-n "$ns")
        k "$verb" "$1" "$name" "${args[@]}" >/dev/null 2>&1 || true
    done < <(k get "$1" -A -o go-template='{{range .items}}{{or .metadata.namespace "-"}} {{.metadata.name}}{{range $key, $value := .metadata.'"$2"'}} {{$key}}{{end}}{{"\n"}}{{end}}' 2>/dev/null)
}

clean_nodes() {
    system create configmap kube-ovn-cleanup --from-file="$HOME_DIR/packaging/install/node-cleanup.sh" --dry-run=client -o yaml | k apply -f - >/dev/null
    render "$HOME_DIR/packaging/manifests/node-cleanup.yaml.in" | k apply -f - >/dev/null
    if wait_until 120 ready daemonset kube-ovn-cleanup; then say "nodes are clean"
    else explain app=kube-ovn-cleanup; note "not all nodes could be cleaned, see above"; fi
    remove_workload daemonset/kube-ovn-cleanup app=kube-ovn-cleanup 30
    system delete configmap kube-ovn-cleanup --ignore-not-found >/dev/null
}

# The image that is installed is surely on the nodes.
installed_image() {
    system get daemonset ovs-ovn -o jsonpath='{.spec.template.spec.containers[0].image} {.spec.template.spec.containers[0].imagePullPolicy}' 2>/dev/null || true
}

clean_cluster() {
    need_kubectl
    local image policy
    read -r image policy < <(installed_image) || true
    [ -z "${image:-}" ] || [ -n "${IMAGE:-}" ] || export IMAGE=$image IMAGE_PULL_POLICY=$policy
    recall_settings
    read_settings

    say "workloads"
    # Whoever would react to the deletions goes first; Open vSwitch last.
    remove_workload deployment/kube-ovn-webhook app=kube-ovn-webhook 10
    remove_workload daemonset/kube-ovn-speaker app=kube-ovn-speaker 20
    remove_workload daemonset/kube-ovn-pinger app=kube-ovn-pinger 30
    remove_workload deployment/kube-ovn-monitor app=kube-ovn-monitor 20
    remove_workload deployment/ovn-ic-controller app=ovn-ic-controller 20
    remove_workload deployment/ovn-ic-server app=ovn-ic-server 20
    remove_workload deployment/kube-ovn-controller app=kube-ovn-controller 30
    k delete validatingwebhookconfiguration kube-ovn-webhook --ignore-not-found >/dev/null
    say "custom resources"
    remove_objects
    remove_workload daemonset/kube-ovn-cni app=kube-ovn-cni 40
    remove_workload deployment/ovn-central app=ovn-central 40
    remove_workload daemonset/ovs-ovn app=ovs 60
    remove_workload daemonset/ovs-ovn-dpdk app=ovs-dpdk 60
    say "nodes"
    clean_nodes
    say "services, accounts, marks"
    system delete service ovn-nb ovn-sb ovn-northd kube-ovn-controller kube-ovn-cni kube-ovn-monitor kube-ovn-pinger kube-ovn-webhook --ignore-not-found >/dev/null
    system delete configmap kube-ovn-install ovn-config ovn-ic-config ovn-external-gw-config ovn-vpc-nat-config ovn-vpc-nat-gw-config vpc-dns-config --ignore-not-found >/dev/null
    system delete secret kube-ovn-tls kube-ovn-webhook-secret ovn-ipsec-ca --ignore-not-found >/dev/null
    system delete lease kube-ovn-controller --ignore-not-found >/dev/null
    system delete serviceaccount ovn ovn-ovs kube-ovn-cni kube-ovn-app kube-ovn-webhook vpc-dns vpc-nat-gw --ignore-not-found >/dev/null
    system delete rolebinding ovn ovn-ovs kube-ovn-controller-leader kube-ovn-cni kube-ovn-app kube-ovn-app-peers kube-ovn-webhook --ignore-not-found >/dev/null
    system delete role kube-ovn-controller-leader kube-ovn-app-peers kube-ovn-webhook --ignore-not-found >/dev/null
    k delete clusterrolebinding ovn ovn-ovs kube-ovn-cni kube-ovn-app kube-ovn-webhook vpc-dns --ignore-not-found >/dev/null
    k delete clusterrole system:ovn system:ovn-ovs system:kube-ovn-cni system:kube-ovn-app system:kube-ovn-webhook system:vpc-dns --ignore-not-found >/dev/null
    remove_marks nodes annotations
    remove_marks nodes labels
    remove_marks namespaces annotations
    remove_marks pods annotations
    if [ $NOTES = 0 ]; then say "Kube-OVN is removed; pods keep no network until another plugin is installed"
    else say "done with $NOTES notes, see above"; exit 1; fi
}

case ${1:-} in
    '') clean_cluster ;;
    --sandbox) exec "$HOME_DIR/packaging/sandbox/cluster" down ;;
    -h | --help) usage ;;
    *) die "unknown option $1 (see ./cleanup.sh --help)" ;;
esac
