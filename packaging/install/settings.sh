# shellcheck shell=bash
# The settings of install.sh: names, kinds, defaults, checks. Sourced, never run.

# NAME | kind | default | meaning. Every one is taken from the environment.
# Kinds: bool, int, path, image, text (no blanks, no quotes), cidrs, ips, ranges,
# or the allowed values joined by slashes. Defaults `@` are made by auto_NAME.
SETTINGS='
IPV6|bool|false|IPv6 only
DUAL_STACK|bool|false|IPv4 and IPv6
POD_CIDR|cidrs|@|default subnet (10.16.0.0/16, fd00:10:16::/112)
POD_GATEWAY|ips||its gateway; empty = first address
EXCLUDE_IPS|ranges||addresses never given to pods: a..b or a, comma list
SVC_CIDR|cidrs|@|Services (10.96.0.0/12, fd00:10:96::/108); must be the cluster'\''s
JOIN_CIDR|cidrs|@|join subnet of the nodes (100.64.0.0/16, fd00:100:64::/112)
PINGER_EXTERNAL_ADDRESS|ips|@|pinged by kube-ovn-pinger (1.1.1.1, 2606:4700:4700::1111)
PINGER_EXTERNAL_DOMAIN|text|@|resolved by it (kube-ovn.io., google.com. with IPv6)
LABEL|text|node-role.kubernetes.io/control-plane|nodes with this label become masters
DEPRECATED_LABEL|text|node-role.kubernetes.io/master|tried when no node has LABEL
NODE_IPS|ips||addresses of the masters; empty = taken from the nodes
REGISTRY|image|docker.io/kubeovn|image prefix
VERSION|image|@|image tag
IMAGE|image|@|image; empty = REGISTRY/kube-ovn:VERSION
IMAGE_PULL_POLICY|Always/IfNotPresent/Never|IfNotPresent|
VPC_NAT_IMAGE|image|vpc-nat-gateway|image name of VPC NAT gateways
DEL_NON_HOST_NET_POD|bool|true|restart pods that another network plugin attached
TUNNEL_TYPE|geneve/vxlan/stt|geneve|tunnels between nodes
NETWORK_TYPE|geneve/vxlan/vlan|geneve|default network
IFACE|text||tunnel NIC: a name, or a comma list of regular expressions
OVS_DATAPATH|auto/system/netdev|auto|kernel module, or in user space
POD_NIC_TYPE|veth-pair/internal-port|veth-pair|
ENABLE_LB|bool|true|Services as OVN load balancers
ENABLE_NP|bool|true|NetworkPolicy
ENABLE_EIP_SNAT|bool|true|eip and snat annotations
ENABLE_NAT_GW|bool|true|VPC NAT gateways
ENABLE_KEEP_VM_IP|bool|true|addresses of virtual machines outlive their pods
ENABLE_LIVE_MIGRATION_OPTIMIZE|bool|true|
ENABLE_ARP_DETECT_IP_CONFLICT|bool|true|probe for a doubled address before a pod starts
CHECK_GATEWAY|bool|true|pods wait until their gateway answers
NODE_LOCAL_DNS_IP|ips||addresses of node-local DNS
ENABLE_WEBHOOK|bool|false|refuse wrong objects when they are written
ENABLE_METRICS|bool|true|
SECURE_SERVING|bool|false|metrics by HTTPS for authorized tokens only
ENABLE_BIND_LOCAL_IP|bool|true|listen on the node addresses only
ENABLE_SSL|bool|false|TLS between components and databases
ENABLE_COMPACT|bool|false|compact the databases regularly
CNI_CONFIG_PRIORITY|int|01|NN-kube-ovn.conflist
CNI_CONF_DIR|path|/etc/cni/net.d|
CNI_BIN_DIR|path|/opt/cni/bin|
KUBELET_DIR|path|/var/lib/kubelet|
LOG_DIR|path|/var/log|
OVN_DIR|path|/etc/origin/ovn|databases on the masters
OPENVSWITCH_DIR|path|/etc/origin/openvswitch|
GC_INTERVAL|int|360|accepted for compatibility
INSPECT_INTERVAL|int|20|accepted for compatibility
OVSDB_CON_TIMEOUT|int|3|seconds
OVSDB_INACTIVITY_TIMEOUT|int|10|seconds
OVS_VSCTL_CONCURRENCY|int|100|accepted for compatibility
SET_VXLAN_TX_OFF|bool|false|
DPDK_TUNNEL_IFACE|text|br-phy|tunnel NIC of userspace datapaths
LS_DNAT_MOD_DL_DST|bool|true|accepted for compatibility
LS_CT_SKIP_DST_LPORT_IPS|bool|true|accepted for compatibility
DEBUG_WRAPPER|text||prefix of the OVN and OVS programs
PROBE_INTERVAL|int|180000|ms
OVN_NORTHD_PROBE_INTERVAL|int|5000|ms
OVN_LEADER_PROBE_INTERVAL|int|5|s
OVN_NORTHD_N_THREADS|int|1|
OVN_REMOTE_PROBE_INTERVAL|int|10000|ms; with several masters 10000 means 4000
OVN_REMOTE_OPENFLOW_INTERVAL|int|180|s
OVN_OFCTRL_WAIT_BEFORE_CLEAR|int|8000|ms that flows outlive a crashed ovn-controller while its successor computes
KUBECTL_KO_DIR|text|/usr/local/bin|kubectl ko is installed there on this machine; a blank-free path
TIMEOUT|int|300|seconds that a component may take to get ready
VLAN_INTERFACE_NAME|text||
VLAN_ID|int|100|
VLAN_NIC|text||
ENABLE_VLAN|bool|false|
EXCHANGE_LINK_NAME|bool|false|
LOGICAL_GATEWAY|bool|false|
U2O_INTERCONNECTION|bool|false|
ENABLE_EXTERNAL_VPC|bool|false|
ENABLE_LB_SVC|bool|false|
ENABLE_ANP|bool|false|
ENABLE_OVN_LB_PREFER_LOCAL|bool|false|policy Local falls back to endpoints of other nodes
ENABLE_MIRROR|bool|false|
MIRROR_IFACE|text|mirror0|
HW_OFFLOAD|bool|false|
ENABLE_TPROXY|bool|false|
ENABLE_OVN_IPSEC|bool|false|
ENABLE_IC|bool|false|
HYBRID_DPDK|bool|false|
DPDK_TAG|text||
DPDK_CPU|text||
DPDK_MEMORY|text||
'

# NAME | the only value so far | feature
LATER='
NETWORK_TYPE|geneve/vxlan|an underlay default network
TUNNEL_TYPE|geneve/vxlan|stt (not in stock Open vSwitch)
POD_NIC_TYPE|veth-pair|a default NIC type other than veth-pair
ENABLE_VLAN|false|an underlay default network
EXCHANGE_LINK_NAME|false|an underlay default network
LOGICAL_GATEWAY|false|an underlay default network
U2O_INTERCONNECTION|false|an underlay default network
ENABLE_EXTERNAL_VPC|false|import of VPCs
ENABLE_LB_SVC|false|LoadBalancer Services
HW_OFFLOAD|false|hardware offload
ENABLE_TPROXY|false|probes by TProxy
ENABLE_OVN_IPSEC|false|IPsec
ENABLE_IC|false|cluster interconnection
HYBRID_DPDK|false|DPDK
DPDK_TAG||DPDK
DPDK_CPU||DPDK
DPDK_MEMORY||DPDK
'

later() { die "$1=$2: $3 is not supported by this version; leave it out${4:+ or set it to $4}"; }

# Settings that were given at an earlier installation stay unless they are given anew. Upstream's
# script falls back to its defaults: an upgrade that forgets one changes the network. The image is
# not kept, it belongs to the release.
recall_settings() {
    local name value recalled=
    # shellcheck disable=SC2016
    while IFS='=' read -r name value; do
        [[ $SETTINGS == *$'\n'"$name|"* && -z ${!name:-} ]] || continue
        printf -v "$name" %s "$value"
        recalled="$recalled $name=$value"
    done < <(system get configmap kube-ovn-install -o go-template='{{range $name, $value := .data}}{{$name}}={{$value}}{{"\n"}}{{end}}' 2>/dev/null)
    [ -z "$recalled" ] || say "as before:$recalled"
}

# Before read_settings: what is set now was given.
given_settings() {
    local name _
    while IFS='|' read -r name _; do
        case $name in '' | IMAGE | VERSION | NODE_IPS | TIMEOUT | KUBECTL_KO_DIR) continue ;; esac
        if [ -n "${!name:-}" ]; then echo "$name=${!name}"; fi
    done <<<"$SETTINGS"
}

remember_settings() { # GIVEN
    local line
    local -a data=()
    while read -r line; do [ -z "$line" ] || data+=("--from-literal=$line"); done <<<"$1"
    system create configmap kube-ovn-install ${data[@]+"${data[@]}"} --dry-run=client -o yaml | k apply -f - >/dev/null
}

read_settings() {
    local name kind default _ value
    while IFS='|' read -r name kind default _; do
        [ -n "$name" ] || continue
        value=${!name:-$default}
        [ "$value" != @ ] || value=$(auto_"$name")
        check "$name" "$kind" "$value"
        printf -v "$name" %s "$value"
        export "${name?}"
    done <<<"$SETTINGS"
    while IFS='|' read -r name default kind; do
        [ -n "$name" ] || continue
        case "/$default/" in */"${!name}"/*) ;; *) later "$name" "${!name}" "$kind" "${default%%/*}" ;; esac
    done <<<"$LATER"
    # shellcheck disable=SC2153
    [ "$OVSDB_INACTIVITY_TIMEOUT" = 0 ] || [ "$OVSDB_INACTIVITY_TIMEOUT" -gt "$OVSDB_CON_TIMEOUT" ] ||
        die "OVSDB_INACTIVITY_TIMEOUT=$OVSDB_INACTIVITY_TIMEOUT must exceed OVSDB_CON_TIMEOUT=$OVSDB_CON_TIMEOUT"
    check_prefixes
    derive
}

both() { if [ "$DUAL_STACK" = true ]; then echo "$1,$2"; elif [ "$IPV6" = true ]; then echo "$2"; else echo "$1"; fi; }
# Called by read_settings as auto_NAME; IPV6 and DUAL_STACK stand before them in the table.
# shellcheck disable=SC2329
{
auto_POD_CIDR() { both 10.16.0.0/16 fd00:10:16::/112; }
auto_SVC_CIDR() { both 10.96.0.0/12 fd00:10:96::/108; }
auto_JOIN_CIDR() { both 100.64.0.0/16 fd00:100:64::/112; }
auto_PINGER_EXTERNAL_ADDRESS() { both 1.1.1.1 2606:4700:4700::1111; }
auto_PINGER_EXTERNAL_DOMAIN() { if [ "$DUAL_STACK$IPV6" = falsefalse ]; then echo kube-ovn.io.; else echo google.com.; fi; }
auto_VERSION() { cat "$HOME_DIR/packaging/VERSION"; }
auto_IMAGE() { echo "$REGISTRY/kube-ovn:$VERSION"; }
}

TEXT='^[]A-Za-z0-9._/:@^$*+?()|,=[-]*$'

check() { # NAME KIND VALUE
    local name=$1 kind=$2 value=$3 part
    case $kind in
        bool) [[ $value =~ ^(true|false)$ ]] || die "$name=$value: write true or false" ;;
        int) [[ $value =~ ^[0-9]{1,9}$ ]] || die "$name=$value: write a number" ;;
        path) [[ $value =~ ^/[A-Za-z0-9._/-]*$ && $value != *..* ]] || die "$name=$value: write an absolute path" ;;
        image) [[ $value =~ ^[A-Za-z0-9][A-Za-z0-9._/:@-]*$ ]] || die "$name=$value: write an image name or tag" ;;
        # Rendered into YAML between double quotes and in flow style.
        text) [[ $value =~ $TEXT ]] || die "$name=$value: these characters are not allowed here" ;;
        cidrs) for part in ${value//,/ }; do prefix_of "$part" >/dev/null || die "$name=$value: $part is not a CIDR"; done ;;
        ips) for part in ${value//,/ }; do bits_of "$part" >/dev/null || die "$name=$value: $part is not an IP address"; done ;;
        ranges)
            for part in ${value//,/ }; do
                if ! bits_of "${part%%..*}" || ! bits_of "${part##*..}"; then
                    die "$name=$value: $part is not an address or a range a..b"
                fi >/dev/null
            done ;;
        *) case "/$kind/" in */"$value"/*) ;; *) die "$name=$value: choose one of ${kind//\// }" ;; esac ;;
    esac
}

# Families fit, prefixes are apart from each other, gateway and exclusions lie inside.
check_prefixes() {
    local name other cidr families want ip
    want=$(both 4 6)
    for name in POD_CIDR SVC_CIDR JOIN_CIDR; do
        families=
        for cidr in ${!name//,/ }; do families="$families,$(family_of "$cidr")"; done
        [[ ${families#,} == "$want" || ${families#,} == 6,4 && $want == 4,6 ]] ||
            die "$name=${!name}: one $(both IPv4 IPv6) prefix is wanted (IPV6=$IPV6 DUAL_STACK=$DUAL_STACK)"
    done
    for name in POD_CIDR:SVC_CIDR POD_CIDR:JOIN_CIDR SVC_CIDR:JOIN_CIDR; do
        other=${name#*:}; name=${name%:*}
        for cidr in ${!name//,/ }; do
            for ip in ${!other//,/ }; do
                if overlap "$cidr" "$ip"; then die "$name=${!name} and $other=${!other} overlap; choose ranges that are apart"; fi
            done
        done
    done
    for ip in ${POD_GATEWAY//,/ }; do
        holds "$POD_CIDR" "$ip" || die "POD_GATEWAY=$POD_GATEWAY: $ip is not in POD_CIDR=$POD_CIDR"
    done
    for ip in ${EXCLUDE_IPS//,/ }; do
        if ! holds "$POD_CIDR" "${ip%%..*}" || ! holds "$POD_CIDR" "${ip##*..}"; then
            die "EXCLUDE_IPS=$EXCLUDE_IPS: $ip is not in POD_CIDR=$POD_CIDR"
        fi
    done
}

derive() {
    PROBE_HTTP_SCHEME=HTTP SVC_YAML_IPFAMILYPOLICY=
    [ "$SECURE_SERVING" = false ] || PROBE_HTTP_SCHEME=HTTPS
    [ "$DUAL_STACK" = false ] || SVC_YAML_IPFAMILYPOLICY='ipFamilyPolicy: PreferDualStack'
    export PROBE_HTTP_SCHEME SVC_YAML_IPFAMILYPOLICY
}

print_settings() {
    local name kind default about
    while IFS='|' read -r name kind default about; do
        [ -n "$name" ] || continue
        [ "$default" != @ ] || default=
        printf '  %-31s %-24s %s\n' "$name" "${default:-\"\"}" "$about"
    done <<<"$SETTINGS"
}
