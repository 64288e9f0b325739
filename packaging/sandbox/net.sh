# shellcheck shell=bash disable=SC2034
# Addresses of a sandbox. Sourced after lib.sh.
#
#   fabric namespace ("the outside world")
#     br0  172.30.0.1/24  fd00:172:30::1/64    nodes' eth0: Kubernetes, default gateway
#     br1  172.30.1.1/24  fd00:172:30:1::1/64  nodes' eth1: tunnels
#     br2  172.30.2.1/24  fd00:172:30:2::1/64  nodes' eth2 (no address there): underlay, external
#     lo   172.31.255.1   fd00:172:31::1       a web server that is in no node's subnet
#   node N has host part 10+N on eth0 and eth1.
# These are the same in every sandbox, since each has a fabric of its own. The host sees only
# a /30 of 198.18.0.0/15 (RFC 2544) on the veth kos-ID; the fabric forwards its port 6443 to
# the apiserver.

NET4=172.30
NET6=fd00:172:30
OUTSIDE4=172.31.255.1
OUTSIDE6=fd00:172:31::1
HOST_VETH=kos-$SANDBOX_ID

node4() { echo "$NET4.$2.$((10 + ${1#node}))"; }                       # NODE NIC -> IPv4 address
node6() { if [ "$2" = 0 ]; then echo "$NET6::$((10 + ${1#node}))"; else echo "$NET6:$2::$((10 + ${1#node}))"; fi; }

# Families and ranges, with Kube-OVN's variables and defaults. `cluster up` writes its choice to
# the file config, which then holds for every later command on the same sandbox.
# shellcheck disable=SC1091
[ -n "${SANDBOX_FRESH:-}" ] || [ ! -f "$SANDBOX_DIR/config" ] || . "$SANDBOX_DIR/config"
PROXY_MODE=${SANDBOX_PROXY_MODE:-${PROXY_MODE:-iptables}} # or ipvs, nftables, none
FAMILY=v4
[ "${IPV6:-false}" = true ] && FAMILY=v6
[ "${DUAL_STACK:-false}" = true ] && FAMILY=dual
case $FAMILY in
    v4) POD_CIDR=${POD_CIDR:-10.16.0.0/16} SVC_CIDR=${SVC_CIDR:-10.96.0.0/12} JOIN_CIDR=${JOIN_CIDR:-100.64.0.0/16} ;;
    v6) POD_CIDR=${POD_CIDR:-fd00:10:16::/112} SVC_CIDR=${SVC_CIDR:-fd00:10:96::/112} JOIN_CIDR=${JOIN_CIDR:-fd00:100:64::/112} ;;
    dual)
        POD_CIDR=${POD_CIDR:-10.16.0.0/16,fd00:10:16::/112}
        SVC_CIDR=${SVC_CIDR:-10.96.0.0/12,fd00:10:96::/112}
        JOIN_CIDR=${JOIN_CIDR:-100.64.0.0/16,fd00:100:64::/112} ;;
esac
export POD_CIDR SVC_CIDR JOIN_CIDR

# nth_of CIDR N (1..250): the N-th address; an IPv6 range must be written PREFIX::/LEN.
nth_of() {
    local net=${1%/*} a b c d
    if [[ $net == *:* ]]; then
        [[ $net == *:: ]] || die "SVC_CIDR: write the IPv6 range as PREFIX::/LENGTH, not $1"
        printf '%s%x\n' "$net" "$2"
    else
        [[ $net =~ ^([0-9]+)\.([0-9]+)\.([0-9]+)\.([0-9]+)$ ]] || die "SVC_CIDR: $1 is no range"
        IFS=. read -r a b c d <<<"$net"
        echo "$a.$b.$c.$((d + $2))"
    fi
}

# The address of a node that Kubernetes uses first, and all of them (kubelet's --node-ip).
node_ip() { if [ "$FAMILY" = v6 ]; then node6 "$1" 0; else node4 "$1" 0; fi; }
node_ips() { case $FAMILY in v4) node4 "$1" 0 ;; v6) node6 "$1" 0 ;; dual) echo "$(node4 "$1" 0),$(node6 "$1" 0)" ;; esac; }
in_url() { if [[ $1 == *:* ]]; then echo "[$1]"; else echo "$1"; fi; }

# host_block: picks the host's /30 and prints its third and fourth octets' base, "X Y".
# The choice follows from the id; a block that the host already has is passed over.
host_block() {
    local i n o
    n=$((16#$(printf %s "$SANDBOX_ID" | sha256sum | cut -c1-4) % 32768))
    for i in 0 1 2 3 4 5 6 7; do
        o=$(((n + i) % 32768 * 4))
        o="$((18 + o / 65536)).$((o / 256 % 256)).$((o % 256))"
        ip -4 -o addr show | grep -q "inet 198\.${o%.*}\.$((${o##*.} + 1))/" || { echo "198.$o"; return; }
    done
    die "no free address block for the host's link: set another SANDBOX_ID"
}
