//! Ipsets and iptables rules of the default VPC's gateway function.
//!
//! Names of sets and chains, marks and rule texts are read by tools and by the uninstall script;
//! they are the product's interface.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    HostView, IpSet, NatAction, NatPolicyRule, SetKind, SubnetView,
    ipset::set_name,
    iptables::{COUNTER_COMMENT, Hook, HookPlace, Rule, Table, Tables, quoted},
};
use crate::{
    api::{GatewayType, Text},
    net::{Cidr, DualStack, Family},
};

/// Set by kube-proxy on packets to masquerade, and by us for the same end.
const MASQUERADE_MARK: &str = "0x4000/0x4000";
/// Came in through a NodePort of this node.
const NODE_PORT_MARK: &str = "0x80000/0x80000";
/// NAT policy verdicts.
const POLICY_NAT_MARK: &str = "0x90001/0x90001";
const POLICY_FORWARD_MARK: &str = "0x90002/0x90002";
const CLEAR_MARK: &str = "-j MARK --set-xmark 0x0/0xffffffff";
/// XT_MAX_COMMENT_LEN without the terminator.
const MAX_COMMENT: usize = 255;

/// Wanted sets and tables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Firewall {
    pub ipsets: BTreeMap<Text, IpSet>,
    /// Both families: one that the agent does not have must hold nothing of ours.
    pub tables: DualStack<Tables>,
}

/// The firewall for the families of the join port.
pub fn desired_firewall(view: &HostView) -> Firewall {
    let families = view.families();
    let mut firewall = Firewall::default();
    for family in Family::BOTH {
        let tables = if families.contains(&family) {
            let rules = Rules::new(view, family);
            firewall.ipsets.extend(rules.sets());
            rules.tables()
        } else {
            Tables::default()
        };
        firewall.tables.set(family, Some(tables));
    }
    firewall
}

/// One family of the firewall.
struct Rules<'a> {
    view: &'a HostView,
    family: Family,
    /// Of the default VPC, routed by OVN, with an address block of the family; by name.
    subnets: Vec<(&'a SubnetView, Cidr)>,
}

impl<'a> Rules<'a> {
    fn new(view: &'a HostView, family: Family) -> Self {
        let mut subnets: Vec<_> = view
            .subnets
            .iter()
            .filter(|s| s.subnet.vpc == view.cluster_router && s.subnet.is_overlay())
            .filter_map(|s| Some((s, s.subnet.cidrs.get(family)?.network())))
            .collect();
        subnets.sort_by(|a, b| a.0.subnet.name.cmp(&b.0.subnet.name));
        Rules { view, family, subnets }
    }

    fn set(&self, suffix: &str) -> Text {
        set_name(self.family, suffix)
    }

    /// `KUBE-<suffix>` or `KUBE-6-<suffix>`, if kube-proxy made it.
    fn proxy_set(&self, suffix: &str) -> Option<String> {
        let name = match self.family {
            Family::V4 => format!("KUBE-{suffix}"),
            Family::V6 => format!("KUBE-6-{suffix}"),
        };
        self.view.kube_proxy_sets.contains(name.as_str()).then_some(name)
    }

    fn node_ip(&self) -> Option<&IpAddr> {
        self.view.internal_ips.get(self.family)
    }

    fn nat_subnets(&self) -> impl Iterator<Item = &(&'a SubnetView, Cidr)> {
        self.subnets.iter().filter(|(s, _)| s.subnet.nat_outgoing && !s.subnet.deleting)
    }

    fn policy_subnets(&self) -> impl Iterator<Item = &(&'a SubnetView, Cidr)> {
        self.nat_subnets().filter(|(s, _)| !s.nat_policy.is_empty())
    }

    fn sets(&self) -> BTreeMap<Text, IpSet> {
        let mut sets = BTreeMap::new();
        let mut add = |suffix: &str, members: Vec<Cidr>| {
            let set = IpSet::new(SetKind::HashNet, self.family, members);
            sets.insert(self.set(suffix), set);
        };
        let blocks = |(_, cidr): &(&SubnetView, Cidr)| *cidr;
        let distributed = |(s, _): &&(&SubnetView, Cidr)| {
            s.subnet.gateway_type == Some(GatewayType::Distributed) && !s.subnet.deleting
        };
        add("services", self.view.service_cidrs.clone());
        add("subnets", self.subnets.iter().map(blocks).collect());
        add("subnets-nat", self.nat_subnets().map(blocks).collect());
        add(
            "subnets-distributed-gw",
            self.subnets.iter().filter(distributed).map(blocks).collect(),
        );
        add("other-node", self.view.other_nodes.iter().copied().map(Cidr::host).collect());
        add("subnets-nat-policy", self.policy_subnets().map(blocks).collect());
        for rule in self.policy_subnets().flat_map(|(s, _)| &s.nat_policy) {
            if let Some(matched) = self.policy_match(rule) {
                for (suffix, members) in matched.sets {
                    add(&suffix, members.clone());
                }
            }
        }
        // Always empty; the uninstall script of upstream destroys it.
        let legacy = IpSet::new(SetKind::HashIp, self.family, []);
        sets.insert(self.set("local-pod-ip-nat"), legacy);
        sets
    }

    fn tables(&self) -> Tables {
        let mut tables = Tables::default();
        self.nat(&mut tables.nat);
        self.mangle(&mut tables.mangle);
        self.filter(&mut tables.filter);
        tables
    }

    fn nat(&self, table: &mut Table) {
        let mut chain = |name: &str, rules| table.chains.insert(name.into(), rules);
        chain("OVN-PREROUTING", self.prerouting());
        chain("OVN-POSTROUTING", self.postrouting());
        chain("OVN-MASQUERADE", vec![CLEAR_MARK.into(), "-j MASQUERADE --random-fully".into()]);
        let mut parent = Vec::new();
        for (subnet, cidr) in self.policy_subnets() {
            let uid = &subnet.subnet.uid;
            let tail = uid.get(uid.len().saturating_sub(12)..).unwrap_or(uid);
            let name = format!("OVN-NAT-PSUBNET-{tail}");
            let comment = comment(&format!("natPolicySubnet-{}", subnet.subnet.name));
            parent.push(format!("-s {cidr} {comment} -j {name}"));
            chain(&name, self.policy(&subnet.nat_policy));
        }
        chain("OVN-NAT-POLICY", parent);
        table.hooks.insert("PREROUTING", vec![jump("PREROUTING", HookPlace::AbovePortals)]);
        table.hooks.insert("POSTROUTING", vec![jump("POSTROUTING", HookPlace::Early)]);
    }

    fn prerouting(&self) -> Vec<Rule> {
        let (subnets, others) = (self.set("subnets"), self.set("other-node"));
        let service = match self.proxy_set("CLUSTER-IP") {
            Some(set) => format!("--match-set {set} dst,dst"),
            None => format!("--match-set {} dst", self.set("services")),
        };
        let mut rules = vec![format!(
            "-i ovn0 -m set --match-set {subnets} src -m set {service} -j MARK --set-xmark {MASQUERADE_MARK}"
        )];
        for protocol in ["tcp", "udp"] {
            let suffix = format!("NODE-PORT-LOCAL-{}", protocol.to_uppercase());
            let (Some(set), Some(_)) = (self.proxy_set(&suffix), self.node_ip()) else { continue };
            rules.push(format!(
                "-p {protocol} -m addrtype --dst-type LOCAL -m set --match-set {set} dst -j MARK --set-xmark {NODE_PORT_MARK}"
            ));
            rules.push(format!(
                "-p {protocol} -m set --match-set {others} src -m set --match-set {set} dst -j MARK --set-xmark {MASQUERADE_MARK}"
            ));
        }
        rules
    }

    fn postrouting(&self) -> Vec<Rule> {
        let subnets = self.set("subnets");
        let not_ours = format!("-m set ! --match-set {subnets} dst");
        let mut rules = Vec::new();
        if let Some(ip) = self.node_ip() {
            let services = self.set("services");
            rules.push(format!(
                "-m set --match-set {services} src -m set --match-set {subnets} dst -m mark --mark {MASQUERADE_MARK} -j SNAT --to-source {ip} --random-fully"
            ));
        }
        rules.extend([
            format!("-m mark --mark {MASQUERADE_MARK} -j OVN-MASQUERADE"),
            format!(
                "-m set --match-set {subnets} src -m set --match-set {subnets} dst -j OVN-MASQUERADE"
            ),
            format!(
                "-m mark --mark {NODE_PORT_MARK} -m set --match-set {} dst -j RETURN",
                self.set("subnets-distributed-gw")
            ),
            format!("-m mark --mark {NODE_PORT_MARK} -j OVN-MASQUERADE"),
            "-p tcp -m tcp --tcp-flags SYN NONE -m conntrack --ctstate NEW -j RETURN".into(),
            format!(
                "-m set ! --match-set {subnets} src -m set ! --match-set {} src -m set --match-set {} dst -j RETURN",
                self.set("other-node"),
                self.set("subnets-nat")
            ),
            format!(
                "-m set --match-set {} src {not_ours} -j OVN-NAT-POLICY",
                self.set("subnets-nat-policy")
            ),
        ]);
        // A subnet's own address is also that of its policy rules.
        let by_policy = |cidr: &Cidr| self.policy_subnets().any(|(_, c)| c == cidr);
        let egress = self.egress_addresses();
        rules.extend(egress.iter().filter(|(cidr, _)| by_policy(cidr)).map(|(cidr, ip)| {
            format!(
                "-s {cidr} -m mark --mark {POLICY_NAT_MARK} -j SNAT --to-source {ip} --random-fully"
            )
        }));
        rules.extend([
            format!("-m mark --mark {POLICY_NAT_MARK} -j OVN-MASQUERADE"),
            format!("-m mark --mark {POLICY_FORWARD_MARK} -j RETURN"),
        ]);
        rules.extend(egress.iter().map(|(cidr, ip)| {
            format!("-s {cidr} {not_ours} -j SNAT --to-source {ip} --random-fully")
        }));
        rules.push(format!(
            "-m set --match-set {} src {not_ours} -j OVN-MASQUERADE",
            self.set("subnets-nat")
        ));
        rules
    }

    /// Centralized subnets that leave through this node with an address of their own, sorted:
    /// upstream's random order made it rewrite the chain in every round (its bug 26).
    fn egress_addresses(&self) -> Vec<(Cidr, IpAddr)> {
        let mut found: Vec<_> = self
            .nat_subnets()
            .filter(|(s, _)| s.subnet.gateway_type == Some(GatewayType::Centralized))
            .filter(|(s, _)| s.subnet.enable_ecmp || s.active_gateways.contains(&self.view.node))
            .flat_map(|(s, cidr)| {
                let here = s.subnet.gateway_nodes.iter().filter(|g| g.node == self.view.node);
                here.filter_map(|g| g.egress).map(|ip| (*cidr, ip))
            })
            .filter(|(_, ip)| Family::of(*ip) == self.family)
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The first rule that matches decides, as the manual says: MARK does not end the traversal
    /// and the two marks share bits, so each verdict is followed by RETURN (upstream's bug 7 let
    /// `nat` win over an earlier `forward`).
    fn policy(&self, rules: &[NatPolicyRule]) -> Vec<Rule> {
        let mut chain = Vec::new();
        for rule in rules {
            let Some(matched) = self.policy_match(rule) else { continue };
            let mark = match rule.action {
                NatAction::Nat => POLICY_NAT_MARK,
                NatAction::Forward => POLICY_FORWARD_MARK,
            };
            chain.push(format!("{}-j MARK --set-xmark {mark}", matched.text));
            chain.push(format!("{}-j RETURN", matched.text));
        }
        chain
    }

    /// `None` when a list of the rule has no address of this family: without it the rule would
    /// match everything.
    fn policy_match<'r>(&self, rule: &'r NatPolicyRule) -> Option<PolicyMatch<'r>> {
        let mut matched = PolicyMatch { text: String::new(), sets: Vec::new() };
        for (list, end) in [(&rule.sources, "src"), (&rule.destinations, "dst")] {
            if list.is_empty() {
                continue;
            }
            if !list.iter().any(|c| c.family() == self.family) {
                return None;
            }
            let suffix = format!("natpr-{}-{end}", rule.id);
            matched.text.push_str(&format!("-m set --match-set {} {end} ", self.set(&suffix)));
            matched.sets.push((suffix, list));
        }
        Some(matched)
    }

    fn mangle(&self, table: &mut Table) {
        let subnets = self.set("subnets");
        let invalid_reset = format!(
            "-p tcp -m set --match-set {subnets} src -m tcp --tcp-flags RST RST -m state --state INVALID -j DROP"
        );
        table.chains.insert("OVN-POSTROUTING".into(), vec![invalid_reset]);
        // Filled by TProxy only, but always there.
        table.chains.insert("OVN-PREROUTING".into(), Vec::new());
        table.chains.insert("OVN-OUTPUT".into(), Vec::new());
        table.hooks.insert("POSTROUTING", vec![jump("POSTROUTING", HookPlace::Early)]);
    }

    fn filter(&self, table: &mut Table) {
        let accepts: Vec<Hook> = [("services", "dst"), ("services", "src")]
            .into_iter()
            .chain([("subnets", "dst"), ("subnets", "src")])
            .map(|(suffix, end)| {
                late(format!("-m set --match-set {} {end} -j ACCEPT", self.set(suffix)))
            })
            .collect();
        // Tunnel packets inherit the mark of the packet inside and must not be masqueraded.
        let marks = ["4789", "6081"]
            .map(|port| late(format!("-p udp -m udp --dport {port} {CLEAR_MARK}")))
            .to_vec();
        let counters = self.subnets.iter().flat_map(|(subnet, cidr)| {
            let comment = comment(&format!("{COUNTER_COMMENT}{}", subnet.subnet.name));
            ["-s", "-d"].map(|end| early(format!("{end} {cidr} {comment}")))
        });
        let reject: Vec<Hook> = self.ipvs_reject().into_iter().map(early).collect();
        table.hooks.insert("INPUT", [reject.as_slice(), &accepts].concat());
        table.hooks.insert("FORWARD", counters.chain(accepts).collect());
        table.hooks.insert("OUTPUT", [reject, marks].concat());
    }

    /// In ipvs mode a Service without a matching port would be answered by the host itself.
    fn ipvs_reject(&self) -> Option<Rule> {
        self.proxy_set("CLUSTER-IP")?;
        let reason = match self.family {
            Family::V4 => "icmp-port-unreachable",
            Family::V6 => "icmp6-port-unreachable",
        };
        Some(format!(
            "-p tcp -m mark ! --mark {MASQUERADE_MARK} -m set --match-set {} dst -m conntrack --ctstate NEW -j REJECT --reject-with {reason}",
            self.set("services")
        ))
    }
}

struct PolicyMatch<'r> {
    text: String,
    /// Suffix of the set and its members.
    sets: Vec<(String, &'r Vec<Cidr>)>,
}

fn comment(text: &str) -> String {
    let cut: String = text.chars().take(MAX_COMMENT).collect();
    format!("-m comment --comment {}", quoted(&cut))
}

/// `-m comment --comment "kube-ovn prerouting rules" -j OVN-PREROUTING`.
fn jump(hook: &str, place: HookPlace) -> Hook {
    let comment = comment(&format!("kube-ovn {} rules", hook.to_lowercase()));
    Hook { rule: format!("{comment} -j OVN-{hook}"), place }
}

fn early(rule: Rule) -> Hook {
    Hook { rule, place: HookPlace::Early }
}

fn late(rule: Rule) -> Hook {
    Hook { rule, place: HookPlace::Late }
}
