# shellcheck shell=bash
# Questions to the cluster: what must hold before, and whether a component got ready.
# Sourced, never run.

check_version() {
    local version minor
    version=$(k get --raw /version | sed -n 's/.*"gitVersion": *"v\([0-9.]*\).*/\1/p')
    minor=${version#*.}; minor=${minor%%.*}
    [[ ${version%%.*} = 1 && $minor -ge 29 ]] || die "Kubernetes $version: 1.29 or newer is needed"
}

check_rights() {
    local verb what
    k auth can-i '*' '*' --all-namespaces >/dev/null 2>&1 && return
    while read -r verb what; do
        # shellcheck disable=SC2086
        k auth can-i "$verb" $what >/dev/null 2>&1 ||
            die "this account may not $verb ${what%% *}; use one with the role cluster-admin"
    done <<'RIGHTS'
create customresourcedefinitions.apiextensions.k8s.io
create clusterroles.rbac.authorization.k8s.io
create clusterrolebindings.rbac.authorization.k8s.io
create roles.rbac.authorization.k8s.io -n kube-system
create rolebindings.rbac.authorization.k8s.io -n kube-system
create serviceaccounts -n kube-system
create deployments.apps -n kube-system
create daemonsets.apps -n kube-system
create services -n kube-system
create configmaps -n kube-system
patch nodes
delete pods --all-namespaces
RIGHTS
}

# Sets MASTERS (names), MASTER_IPS (comma list, first InternalIP of each) and MASTER_COUNT.
find_masters() {
    local label line name addresses
    local -a lines=()
    # shellcheck disable=SC2153
    for label in "$LABEL" "$DEPRECATED_LABEL"; do
        mapfile -t lines < <(k get nodes -l "$label" -o jsonpath='{range .items[*]}{.metadata.name}{" "}{range .status.addresses[?(@.type=="InternalIP")]}{.address}{","}{end}{"\n"}{end}')
        [ ${#lines[@]} = 0 ] || break
    done
    [ ${#lines[@]} -gt 0 ] ||
        die "no node has the label $LABEL (or $DEPRECATED_LABEL): set one with 'kubectl label node NAME $LABEL=', or name yours in LABEL"
    MASTERS='' MASTER_IPS=''
    for line in "${lines[@]}"; do
        name=${line%% *} addresses=${line#* }
        [ -n "${addresses%%,*}" ] || die "node $name has no InternalIP; its kubelet reports none"
        MASTERS="$MASTERS $name" MASTER_IPS="$MASTER_IPS,${addresses%%,*}"
    done
    MASTERS=${MASTERS# } MASTER_IPS=${NODE_IPS:-${MASTER_IPS#,}}
    count_masters
}

count_masters() {
    local ips=${MASTER_IPS//[^,]/}
    MASTER_COUNT=$((${#ips} + 1))
    export MASTER_IPS MASTER_COUNT
    [ $((MASTER_COUNT % 2)) = 1 ] ||
        say "note: $MASTER_COUNT masters tolerate no more failures than $((MASTER_COUNT - 1)); odd numbers are better"
}

# Node addresses and Services against the ranges.
check_addresses() {
    local name ip ips
    while read -r name ips; do
        for ip in $ips; do
            bits_of "$ip" >/dev/null || continue
            if holds "$POD_CIDR,$JOIN_CIDR,$SVC_CIDR" "$ip"; then
                die "node $name has the address $ip, which lies in POD_CIDR=$POD_CIDR, JOIN_CIDR=$JOIN_CIDR or SVC_CIDR=$SVC_CIDR; choose other ranges"
            fi
        done
    done < <(k get nodes -o jsonpath='{range .items[*]}{.metadata.name}{range .status.addresses[?(@.type=="InternalIP")]}{" "}{.address}{end}{"\n"}{end}')
    while read -r name ips; do
        for ip in $ips; do
            bits_of "$ip" >/dev/null || continue
            holds "$SVC_CIDR" "$ip" || die "Service $name has the address $ip, which is not in SVC_CIDR=$SVC_CIDR; set SVC_CIDR to the API server's --service-cluster-ip-range"
        done
    done < <(k get services -A -o jsonpath='{range .items[*]}{.metadata.namespace}/{.metadata.name}{range .spec.clusterIPs[*]}{" "}{@}{end}{"\n"}{end}')
}

# ready KIND NAME: prints "READY WANTED"; succeeds when all replicas run the newest template.
ready() {
    local generation observed wanted updated available
    # `|| true`: read reports the missing newline.
    IFS=, read -r generation observed wanted updated available < <(
        case $1 in
            daemonset) system get daemonset "$2" -o jsonpath='{.metadata.generation},{.status.observedGeneration},{.status.desiredNumberScheduled},{.status.updatedNumberScheduled},{.status.numberAvailable}' ;;
            *) system get deployment "$2" -o jsonpath='{.metadata.generation},{.status.observedGeneration},{.spec.replicas},{.status.updatedReplicas},{.status.availableReplicas}' ;;
        esac) || true
    echo "${available:-0} ${wanted:-?}"
    [ -n "${generation:-}" ] && [ "$generation" = "$observed" ] && [ "${wanted:-0}" -gt 0 ] &&
        [ "${updated:-0}" = "$wanted" ] && [ "${available:-0}" = "$wanted" ]
}

# await KIND NAME APP [SECONDS]: waits; dies with the reasons when the time is over, and at once
# when an image cannot be had.
await() {
    local end=$(($(date +%s) + ${4:-$TIMEOUT})) now last='' stuck
    until now=$(ready "$1" "$2" 2>/dev/null); do
        if [ "$now" != "$last" ]; then say "$2: ${now% *} of ${now#* } ready"; last=$now; fi
        stuck=$(system get pods -l "app=$3" -o jsonpath='{..state.waiting.reason}' 2>/dev/null | tr ' ' '\n' |
            grep -E '^(ImagePullBackOff|ErrImageNeverPull|InvalidImageName|CreateContainerConfigError)$' | head -n 1) || true
        if [ -n "$stuck" ] || [ "$(date +%s)" -ge "$end" ]; then
            explain "app=$3"
            die "$1 $2 is not ready (${stuck:-after ${4:-$TIMEOUT} s}), see above; run this again when it is mended"
        fi
        sleep 1
    done
    say "$2: ready"
}

# explain SELECTOR [NAMESPACE]: why its pods are not ready: states, events, the log's end.
explain() {
    local pod ns=${2:-kube-system}
    {
        echo "--- why pods with $1 are not ready"
        k -n "$ns" get pods -l "$1" -o wide
        for pod in $(k -n "$ns" get pods -l "$1" -o jsonpath='{range .items[?(@.status.containerStatuses[*].ready!=true)]}{.metadata.name}{"\n"}{end}' | head -n 3); do
            echo "--- $pod"
            k -n "$ns" get pod "$pod" -o jsonpath='{range .status.initContainerStatuses[*]}{.name}: {.state}{"\n"}{end}{range .status.containerStatuses[*]}{.name}: {.state} before: {.lastState}{"\n"}{end}{range .status.conditions[?(@.status=="False")]}{.type}: {.reason} {.message}{"\n"}{end}'
            k -n "$ns" get events --field-selector "involvedObject.name=$pod" --sort-by=.lastTimestamp -o custom-columns=REASON:.reason,MESSAGE:.message --no-headers 2>/dev/null | tail -n 5
            k -n "$ns" logs "$pod" --all-containers --tail=8 2>/dev/null | grep . ||
                k -n "$ns" logs "$pod" --all-containers --previous --tail=8 2>/dev/null
        done
    } >&2 || true
}
