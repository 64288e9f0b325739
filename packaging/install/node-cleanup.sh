#!/bin/bash
# Removes from a node what Kube-OVN left in its kernel and on its disk. Runs in a privileged pod
# of the product image, with the host's / at /host, its pid and network namespaces, after all other
# Kube-OVN pods are gone. Each step may find nothing to do.
set -u
host=/host

say() { echo "node-cleanup: $*"; }

# OVS and OVN daemons of a pod end with it; one that survived would keep devices.
for file in "$host"/run/openvswitch/*.pid "$host"/run/ovn/*.pid; do
    read -r pid <"$file" || continue
    case $(cat "/proc/$pid/comm" 2>/dev/null) in
        ovsdb-server | ovs-vswitchd | ovn-controller | ovn-northd) say "ending process $pid of $file"; kill -9 "$pid" ;;
    esac
done 2>/dev/null

for dp in $(ovs-dpctl dump-dps 2>/dev/null); do ovs-dpctl del-dp "$dp"; done
for link in ovn0 br-int br-phy ovs-netdev genev_sys_6081 vxlan_sys_4789 mirror0 ovs-system; do
    ip link del "$link" 2>/dev/null && say "link $link removed"
done
# Host ends of pod interfaces: <12 digits>_h and <16 hex digits>_h.
for link in $(ip -o link show type veth | sed -nE 's/^[0-9]+: ([0-9a-z]{8,}_h)[@:].*/\1/p'); do ip link del "$link"; done

# The userspace datapath moved a NIC's addresses and routes to br-phy and noted them there.
ids=$(ovsdb-tool query "$host$OPENVSWITCH_DIR/conf.db" \
    '["Open_vSwitch",{"op":"select","table":"Bridge","where":[["name","==","br-phy"]],"columns":["external_ids"]}]' 2>/dev/null)
noted() { sed -nE "s/.*\[\"kube-ovn-$1\",\"([^\"]*)\"\].*/\1/p" <<<"$ids"; }
uplink=$(noted uplink)
if [ -n "$uplink" ]; then
    ip link set "$uplink" up
    for address in $(noted addresses | tr ',' ' '); do ip addr replace "$address" dev "$uplink"; done
    noted routes | tr ';' '\n' | while read -r route; do
        # shellcheck disable=SC2086
        ip route replace $route dev "$uplink"
    done
    say "addresses of $uplink put back"
fi

# Rules: those that name one of our chains or sets, then the chains, in one batch per table.
for variant in iptables-nft iptables-legacy ip6tables-nft ip6tables-legacy; do
    command -v "$variant-save" >/dev/null || continue
    batch=$("$variant-save" 2>/dev/null | awk '
        /^\*/ { if (body != "") print table body "COMMIT"; table = $0 "\n"; body = ""; chains = "" ; next }
        /^COMMIT/ { if (body chains != "") print table body chains "COMMIT"; body = ""; chains = ""; next }
        /^:OVN-/ { sub(/^:/, ""); flush = flush "-F " $1 "\n"; chains = chains "-X " $1 "\n"; body = body "-F " $1 "\n"; next }
        /^-A OVN-/ { next }
        /^-A OUTPUT -p udp -m udp --dport (4789|6081) -j MARK --set-x?mark 0x0\/0xffffffff$/ ||
        /^-A .*( -j OVN-|--match-set ovn[46]0|"kube-ovn (pre|post)routing rules"|--comment "?ovn-subnet-gateway,)/ { sub(/^-A/, "-D"); body = body $0 "\n" }')
    [ -z "$batch" ] || { say "$variant rules removed"; "$variant-restore" --noflush <<<"$batch"; }
done
for set in $(ipset list -n 2>/dev/null | grep -E '^ovn[46]0'); do ipset destroy "$set" && say "ipset $set removed"; done

rm -rf "$host"/run/openvswitch "$host"/run/ovn "$host$OVN_DIR" "$host$OPENVSWITCH_DIR" "$host/etc/origin/ovs_ipsec_keys" \
    "$host$LOG_DIR"/{kube-ovn,openvswitch,ovn}
rm -f "$host$CNI_CONF_DIR"/[0-9]*-kube-ovn.conflist "$host$CNI_BIN_DIR/kube-ovn"
if [ -e "$host/usr/local/bin/kubectl-ko" ]; then rm -f "$host/usr/local/bin/kubectl-ko"; fi
rmdir "$host/etc/origin" 2>/dev/null
say "done"
touch /tmp/done
exec sleep 1000000
