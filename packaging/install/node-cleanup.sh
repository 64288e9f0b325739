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

# Rules of ours in others' chains, then our chains, in one batch per table. They are known by the
# same forms as in src/host/iptables.rs; OVN-KUBE-* is ovn-kubernetes'.
removals() { # iptables-save on standard input
    awk '
        BEGIN {
            ours = "OVN-(PREROUTING|POSTROUTING|OUTPUT|MASQUERADE|NAT-POLICY|NAT-PSUBNET-[^ ]+)( |$)"
            rule = "( -j " ours "|--match-set ovn[46]0(subnets|services) .*-j (ACCEPT|REJECT)|--comment \"?ovn-subnet-gateway,|-p udp .*--dport (6081|4789) -j MARK --set-x?mark 0x0/)"
        }
        /^\*/ { table = $0; flush = rules = chains = "" }
        $0 ~ "^:" ours { name = substr($1, 2); flush = flush "-F " name "\n"; chains = chains "-X " name "\n" }
        /^-A / && $0 !~ "^-A " ours && $0 ~ rule { sub(/^-A/, "-D"); rules = rules $0 "\n" }
        /^COMMIT/ && flush rules != "" { printf "%s\n%s%s%sCOMMIT\n", table, flush, rules, chains }'
}
for variant in iptables-nft iptables-legacy ip6tables-nft ip6tables-legacy; do
    command -v "$variant-save" >/dev/null || continue
    batch=$("$variant-save" 2>/dev/null | removals)
    [ -z "$batch" ] || { "$variant-restore" --noflush <<<"$batch" && say "$variant rules removed"; }
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
