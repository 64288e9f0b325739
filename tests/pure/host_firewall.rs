//! Sets and rules of the gateway function: exact texts, and the upstream defects not to repeat.

use std::collections::BTreeMap;

use kube_ovn::{
    host::{
        Direction, HostView, NatAction, Tables, desired_firewall, diff_sets, diff_tables,
        parse_counters,
    },
    net::Family,
};

use crate::support::host_view::{centralized, cidr, dual_node, overlay, policy, seen, v4_node};

fn tables(view: &HostView, family: Family) -> Tables {
    desired_firewall(view).tables.get(family).unwrap().clone()
}

fn nat<'a>(tables: &'a Tables, chain: &str) -> &'a Vec<String> {
    &tables.nat.chains[chain]
}

/// What `iptables-save` prints when the kernel holds exactly `tables` and these foreign rules.
fn listing(tables: &Tables, foreign: &[(&str, &str, &str)]) -> String {
    let mut text = String::new();
    let each = [("nat", &tables.nat), ("mangle", &tables.mangle), ("filter", &tables.filter)];
    for (name, table) in each {
        let mut rules: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (chain, own) in &table.chains {
            rules.insert(chain.to_string(), own.clone());
        }
        for (chain, hooks) in &table.hooks {
            rules.insert((*chain).to_owned(), hooks.iter().map(|h| h.rule.clone()).collect());
        }
        for (_, chain, rule) in foreign.iter().filter(|(table, ..)| *table == name) {
            rules.entry((*chain).to_owned()).or_default().push((*rule).to_owned());
        }
        text += &format!("*{name}\n");
        for chain in rules.keys() {
            text += &format!(":{chain} - [0:0]\n");
        }
        for (chain, rules) in &rules {
            for rule in rules {
                text += &format!("[0:0] -A {chain} {rule}\n");
            }
        }
        text += "COMMIT\n";
    }
    text
}

/// A dual-stack node with everything in use, kube-proxy in iptables mode.
fn busy_node() -> HostView {
    let mut view = dual_node();
    view.subnets.push(centralized(
        "egress",
        "10.17.0.0/16,fd00:10:17::/112",
        ["172.18.0.12", "172.18.0.13"],
    ));
    view.subnets.push(centralized("egress6", "fd00:10:18::/112", ["fd00:ee::12", "fd00:ee::13"]));
    let mut ruled = seen(overlay("ruled", "10.19.0.0/16,fd00:10:19::/112"));
    ruled.nat_policy = vec![
        policy(
            "aaaaaaaaaaaa",
            NatAction::Forward,
            &["10.19.0.0/24"],
            &["8.8.8.0/24", "1.1.1.1/32"],
        ),
        policy("bbbbbbbbbbbb", NatAction::Nat, &["10.19.0.0/16"], &[]),
        policy("cccccccccccc", NatAction::Forward, &[], &["fd00:99::/64"]),
    ];
    view.subnets.push(ruled);
    view
}

fn ipvs(mut view: HostView) -> HostView {
    for prefix in ["KUBE-", "KUBE-6-"] {
        for set in ["CLUSTER-IP", "NODE-PORT-LOCAL-TCP", "NODE-PORT-LOCAL-UDP"] {
            view.kube_proxy_sets.insert(format!("{prefix}{set}").into());
        }
    }
    view
}

fn golden(name: &str, found: &str, expected: &str) {
    if std::env::var_os("PRINT_GOLDEN").is_some() {
        println!("=== {name}\n{found}");
    } else {
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn texts_on_a_fresh_node() {
    let firewall = desired_firewall(&busy_node());
    let sets = diff_sets(&firewall.ipsets, "");
    golden("ipset", &sets.before, include_str!("host_firewall/fresh.ipset"));
    assert_eq!(sets.after, "");
    let batch = |family| diff_tables(firewall.tables.get(family).unwrap(), "");
    golden("v4", &batch(Family::V4), include_str!("host_firewall/fresh.v4"));
    golden("v6", &batch(Family::V6), include_str!("host_firewall/fresh.v6"));
}

#[test]
fn texts_with_kube_proxy_in_ipvs_mode() {
    let tables = tables(&ipvs(dual_node()), Family::V4);
    assert_eq!(
        *nat(&tables, "OVN-PREROUTING"),
        [
            "-i ovn0 -m set --match-set ovn40subnets src -m set --match-set KUBE-CLUSTER-IP dst,dst -j MARK --set-xmark 0x4000/0x4000",
            "-p tcp -m addrtype --dst-type LOCAL -m set --match-set KUBE-NODE-PORT-LOCAL-TCP dst -j MARK --set-xmark 0x80000/0x80000",
            "-p tcp -m set --match-set ovn40other-node src -m set --match-set KUBE-NODE-PORT-LOCAL-TCP dst -j MARK --set-xmark 0x4000/0x4000",
            "-p udp -m addrtype --dst-type LOCAL -m set --match-set KUBE-NODE-PORT-LOCAL-UDP dst -j MARK --set-xmark 0x80000/0x80000",
            "-p udp -m set --match-set ovn40other-node src -m set --match-set KUBE-NODE-PORT-LOCAL-UDP dst -j MARK --set-xmark 0x4000/0x4000",
        ]
    );
    let reject = "-p tcp -m mark ! --mark 0x4000/0x4000 -m set --match-set ovn40services dst -m conntrack --ctstate NEW -j REJECT --reject-with icmp-port-unreachable";
    for chain in ["INPUT", "OUTPUT"] {
        // Above the rule that accepts the same packets.
        assert_eq!(tables.filter.hooks[chain][0].rule, reject);
    }
    assert!(!tables.filter.hooks["FORWARD"].iter().any(|h| h.rule == reject));
}

#[test]
fn ipv6_uses_its_own_proxy_sets() {
    let tables = tables(&ipvs(dual_node()), Family::V6);
    let chain = nat(&tables, "OVN-PREROUTING").join("\n");
    assert!(chain.contains("--match-set KUBE-6-CLUSTER-IP dst,dst"), "{chain}");
    assert!(chain.contains("--match-set KUBE-6-NODE-PORT-LOCAL-UDP dst"), "{chain}");
    assert!(!chain.contains("ovn40"), "{chain}");
    assert!(tables.filter.hooks["INPUT"][0].rule.ends_with("--reject-with icmp6-port-unreachable"));
}

#[test]
fn node_port_rules_need_an_internal_ip_of_the_family() {
    let mut view = ipvs(dual_node());
    view.internal_ips.v6 = None;
    assert_eq!(nat(&tables(&view, Family::V6), "OVN-PREROUTING").len(), 1);
    let post = tables(&view, Family::V6);
    assert!(!nat(&post, "OVN-POSTROUTING")[0].contains("--to-source"));
}

#[test]
fn applied_rules_need_no_operation() {
    let firewall = desired_firewall(&ipvs(busy_node()));
    let foreign = [
        (
            "nat",
            "PREROUTING",
            r#"-m comment --comment "kubernetes service portals" -j KUBE-SERVICES"#,
        ),
        ("filter", "FORWARD", "-j KUBE-FORWARD"),
        ("nat", "KUBE-SERVICES", "-d 10.96.0.1/32 -p tcp -j KUBE-SVC-NPX46M4PTMTKRN6Y"),
    ];
    for (family, tables) in firewall.tables.iter() {
        assert_eq!(diff_tables(tables, &listing(tables, &foreign)), "", "{family:?}");
    }
    let saved = diff_sets(&firewall.ipsets, "").before;
    let saved = saved.replace("/32\n", "\n").replace("/128\n", "\n");
    assert_eq!(diff_sets(&firewall.ipsets, &saved), Default::default());
}

/// Upstream bug 7: MARK does not end the traversal and the marks share bits, so a packet that
/// matched a `forward` and a `nat` rule was always NATed.
#[test]
fn bug_07_first_nat_policy_rule_wins() {
    let found = tables(&busy_node(), Family::V4);
    let chain = nat(&found, "OVN-NAT-PSUBNET-0000000ruled");
    assert_eq!(
        *chain,
        [
            "-m set --match-set ovn40natpr-aaaaaaaaaaaa-src src -m set --match-set ovn40natpr-aaaaaaaaaaaa-dst dst -j MARK --set-xmark 0x90002/0x90002",
            "-m set --match-set ovn40natpr-aaaaaaaaaaaa-src src -m set --match-set ovn40natpr-aaaaaaaaaaaa-dst dst -j RETURN",
            "-m set --match-set ovn40natpr-bbbbbbbbbbbb-src src -j MARK --set-xmark 0x90001/0x90001",
            "-m set --match-set ovn40natpr-bbbbbbbbbbbb-src src -j RETURN",
        ]
    );
}

/// A list of the other family must not turn into a rule without a condition.
#[test]
fn nat_policy_rules_of_the_other_family_are_skipped() {
    let found = tables(&busy_node(), Family::V6);
    let chain = nat(&found, "OVN-NAT-PSUBNET-0000000ruled");
    assert_eq!(
        chain[0],
        "-m set --match-set ovn60natpr-cccccccccccc-dst dst -j MARK --set-xmark 0x90002/0x90002"
    );
    assert_eq!(chain.len(), 2);
}

/// The address of a centralized subnet is also that of what its policy rules translate.
#[test]
fn nat_policy_rules_use_the_egress_address() {
    let mut view = busy_node();
    let mut ruled = centralized("both", "10.12.0.0/16", ["172.18.0.14", "172.18.0.15"]);
    ruled.nat_policy = vec![policy("dddddddddddd", NatAction::Nat, &["10.12.0.0/24"], &[])];
    view.subnets.push(ruled);
    let found = tables(&view, Family::V4);
    let chain = nat(&found, "OVN-POSTROUTING");
    let place =
        |rule: &str| chain.iter().position(|r| r == rule).unwrap_or_else(|| panic!("{chain:#?}"));
    let own = place(
        "-s 10.12.0.0/16 -m mark --mark 0x90001/0x90001 -j SNAT --to-source 172.18.0.14 --random-fully",
    );
    assert!(
        place(
            "-m set --match-set ovn40subnets-nat-policy src -m set ! --match-set ovn40subnets dst -j OVN-NAT-POLICY"
        ) < own
    );
    assert!(own < place("-m mark --mark 0x90001/0x90001 -j OVN-MASQUERADE"));
    let of_policy = chain.iter().filter(|r| r.contains("0x90001/0x90001 -j SNAT")).count();
    assert_eq!(of_policy, 1, "subnets without rules have none of these");
}

/// Upstream bug 26: random order rewrote the chain in every round, and IPv6 egress addresses
/// never took effect.
#[test]
fn bug_26_central_snat_rules_are_sorted_and_dual_stack() {
    let mut view = busy_node();
    view.subnets.push(centralized("also", "10.12.0.0/16", ["172.18.0.14", "172.18.0.15"]));
    let snat = |view: &HostView, family| -> Vec<String> {
        let tables = tables(view, family);
        let chain = nat(&tables, "OVN-POSTROUTING").iter();
        chain.filter(|r| r.starts_with("-s ")).cloned().collect()
    };
    let expected = [
        "-s 10.12.0.0/16 -m set ! --match-set ovn40subnets dst -j SNAT --to-source 172.18.0.14 --random-fully",
        "-s 10.17.0.0/16 -m set ! --match-set ovn40subnets dst -j SNAT --to-source 172.18.0.12 --random-fully",
    ];
    assert_eq!(snat(&view, Family::V4), expected);
    view.subnets.reverse();
    assert_eq!(snat(&view, Family::V4), expected);
    assert_eq!(
        snat(&view, Family::V6),
        [
            "-s fd00:10:18::/112 -m set ! --match-set ovn60subnets dst -j SNAT --to-source fd00:ee::12 --random-fully"
        ]
    );
}

#[test]
fn central_snat_only_on_the_active_gateway_or_with_ecmp() {
    let mut view = busy_node();
    view.node = "node2".into();
    let count = |view: &HostView| {
        let tables = tables(view, Family::V4);
        nat(&tables, "OVN-POSTROUTING").iter().filter(|r| r.starts_with("-s ")).count()
    };
    assert_eq!(count(&view), 0);
    let subnet = &mut view.subnets[2];
    let mut ecmp = (*subnet.subnet).clone();
    ecmp.enable_ecmp = true;
    subnet.subnet = ecmp.into();
    assert_eq!(count(&view), 1);
}

#[test]
fn deleting_and_foreign_subnets_leave_the_sets() {
    let mut view = dual_node();
    let mut leaving = overlay("leaving", "10.20.0.0/16");
    leaving.deleting = true;
    let mut custom = overlay("custom", "10.21.0.0/16");
    custom.vpc = "vpc1".into();
    let mut vlan = overlay("vlan", "10.22.0.0/16");
    vlan.vlan = Some("vlan1".into());
    let mut logical = overlay("logical", "10.23.0.0/16");
    (logical.vlan, logical.logical_gateway) = (Some("vlan1".into()), true);
    view.subnets.extend([leaving, custom, vlan, logical].map(seen));
    let sets = desired_firewall(&view).ipsets;
    let members =
        |name: &str| sets[name].members.iter().map(|c| c.to_string()).collect::<Vec<_>>().join(" ");
    assert_eq!(members("ovn40subnets"), "10.16.0.0/16 10.20.0.0/16 10.23.0.0/16 100.64.0.0/16");
    assert_eq!(members("ovn40subnets-nat"), "10.16.0.0/16 10.23.0.0/16");
    assert_eq!(members("ovn40subnets-distributed-gw"), "10.16.0.0/16 10.23.0.0/16");
    assert_eq!(members("ovn60other-node"), "fc00:f853:ccd:e793::3/128");
    assert_eq!(members("ovn40local-pod-ip-nat"), "");
}

/// hash:net refuses a prefix of length 0; a policy may well name it.
#[test]
fn prefix_zero_becomes_two_halves() {
    let mut view = dual_node();
    let mut ruled = seen(overlay("ruled", "10.19.0.0/16,fd00:10:19::/112"));
    ruled.nat_policy = vec![policy("aaaaaaaaaaaa", NatAction::Nat, &[], &["0.0.0.0/0", "::/0"])];
    view.subnets.push(ruled);
    let sets = desired_firewall(&view).ipsets;
    let members = |name: &str| sets[name].members.iter().copied().collect::<Vec<_>>();
    assert_eq!(members("ovn40natpr-aaaaaaaaaaaa-dst"), [cidr("0.0.0.0/1"), cidr("128.0.0.0/1")]);
    assert_eq!(members("ovn60natpr-aaaaaaaaaaaa-dst"), [cidr("::/1"), cidr("8000::/1")]);
}

#[test]
fn sets_change_member_by_member() {
    let view = v4_node();
    let sets = desired_firewall(&view).ipsets;
    let listing = diff_sets(&sets, "").before.replace(
        "add ovn40other-node 172.18.0.3/32\n",
        "add ovn40other-node 172.18.0.9\nadd ovn40other-node 172.18.0.0/24 nomatch\n",
    ) + "create ovn40gone hash:net family inet hashsize 1024 maxelem 65536\n\
         create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 65536\n\
         add KUBE-CLUSTER-IP 10.96.0.1,tcp:443\n";
    let changes = diff_sets(&sets, &listing);
    assert_eq!(
        changes.before,
        "add ovn40other-node 172.18.0.3/32 -exist\n\
         del ovn40other-node 172.18.0.9 -exist\n\
         del ovn40other-node 172.18.0.0/24 -exist\n"
    );
    assert_eq!(changes.after, "destroy ovn40gone\n");
}

#[test]
fn a_set_of_another_size_is_swapped_under_the_rules() {
    let view = v4_node();
    let sets = desired_firewall(&view).ipsets;
    let listing = diff_sets(&sets, "").before.replace(
        "create ovn40services hash:net family inet hashsize 1024 maxelem 1048576",
        "create ovn40services hash:net family inet hashsize 1024 maxelem 65536",
    );
    assert_eq!(
        diff_sets(&sets, &listing).before,
        "create ovn40-spare hash:net family inet hashsize 1024 maxelem 1048576\n\
         add ovn40-spare 10.96.0.0/12\n\
         swap ovn40-spare ovn40services\n\
         destroy ovn40-spare\n"
    );
}

const PORTALS: &str = r#"-m comment --comment "kubernetes service portals" -j KUBE-SERVICES"#;
const OUR_JUMP: &str = r#"-m comment --comment "kube-ovn prerouting rules" -j OVN-PREROUTING"#;

fn prerouting_moves(rules: &[&str]) -> Vec<String> {
    let mut tables = tables(&v4_node(), Family::V4);
    tables.nat.hooks.remove("POSTROUTING");
    let own = listing(&Tables { nat: tables.nat.clone(), ..Tables::default() }, &[]);
    let others: String =
        own.lines().filter(|l| !l.contains("-A PREROUTING")).fold(String::new(), |text, line| {
            match line {
                "*nat" => {
                    let rules: String =
                        rules.iter().map(|r| format!("[1:60] -A PREROUTING {r}\n")).collect();
                    format!("{text}*nat\n:PREROUTING ACCEPT [9:540]\n{rules}")
                }
                line => format!("{text}{line}\n"),
            }
        });
    let nat = Tables { nat: tables.nat, ..Tables::default() };
    let batch = diff_tables(&nat, &others);
    batch.lines().filter(|l| l.contains("PREROUTING ")).map(str::to_owned).collect()
}

#[test]
fn prerouting_jump_stays_above_the_service_portals() {
    let none: [&str; 0] = [];
    assert_eq!(prerouting_moves(&[OUR_JUMP, PORTALS]), none);
    assert_eq!(prerouting_moves(&["-j CILIUM", OUR_JUMP, PORTALS]), none);
    assert_eq!(prerouting_moves(&[OUR_JUMP]), none);
    assert_eq!(prerouting_moves(&[PORTALS]), [format!("-I PREROUTING {OUR_JUMP}")]);
    let delete = format!("-D PREROUTING {OUR_JUMP}");
    assert_eq!(
        prerouting_moves(&["-j CILIUM", PORTALS, OUR_JUMP]),
        [delete.clone(), format!("-I PREROUTING 2 {OUR_JUMP}")]
    );
    // Without portals the place is the first one; copies are taken away.
    assert_eq!(
        prerouting_moves(&["-j CILIUM", OUR_JUMP, OUR_JUMP]),
        [delete.clone(), delete, format!("-I PREROUTING {OUR_JUMP}")]
    );
}

#[test]
fn rules_of_others_are_never_touched() {
    let tables = tables(&v4_node(), Family::V4);
    let foreign = [
        ("nat", "POSTROUTING", "-s 10.16.0.0/16 -j OVN-KUBE-EGRESS"),
        ("nat", "OVN-KUBE-EGRESS", "-j RETURN"),
        ("filter", "FORWARD", "-m set --match-set ovn40subnets src -j LOG"),
        (
            "filter",
            "FORWARD",
            "-p tcp -m set --match-set ovn40subnets src -m tcp --dport 22 -j ACCEPT",
        ),
        ("filter", "OUTPUT", "-p udp -m udp --dport 6081 -j MARK --set-xmark 0x1/0xffffffff"),
    ];
    let seen = listing(&tables, &foreign);
    assert_eq!(diff_tables(&tables, &seen), "");
    let gone = diff_tables(&Tables::default(), &seen);
    for rule in ["OVN-KUBE-EGRESS", "-j LOG", "--dport 22", "0x1/0xffffffff"] {
        assert!(!gone.contains(rule), "{rule} in {gone}");
    }
    // What is ours goes completely.
    let left: Vec<&str> = gone.lines().filter(|l| l.starts_with("-X")).collect();
    assert_eq!(left.len(), 7, "{left:?}");
}

#[test]
fn counters_follow_the_subnets_and_stay_on_top() {
    let before = tables(&v4_node(), Family::V4);
    let mut view = v4_node();
    view.subnets.push(seen(overlay("new", "10.24.0.0/16")));
    let batch = diff_tables(&tables(&view, Family::V4), &listing(&before, &[]));
    assert_eq!(
        batch,
        "*filter\n\
         -I FORWARD -d 10.24.0.0/16 -m comment --comment \"ovn-subnet-gateway,new\"\n\
         -I FORWARD -s 10.24.0.0/16 -m comment --comment \"ovn-subnet-gateway,new\"\n\
         COMMIT\n"
    );
    let back = diff_tables(&before, &listing(&tables(&view, Family::V4), &[]));
    assert_eq!(
        back,
        "*filter\n\
         -D FORWARD -s 10.24.0.0/16 -m comment --comment \"ovn-subnet-gateway,new\"\n\
         -D FORWARD -d 10.24.0.0/16 -m comment --comment \"ovn-subnet-gateway,new\"\n\
         COMMIT\n"
    );
}

/// An accept that was lost may not come back above the counters, or they would stop counting.
#[test]
fn lost_accept_returns_below_the_counters() {
    let tables = tables(&v4_node(), Family::V4);
    let lost = "[0:0] -A FORWARD -m set --match-set ovn40subnets src -j ACCEPT\n";
    let seen = listing(&tables, &[]).replace(lost, "");
    let batch = diff_tables(&tables, &seen);
    let inserted: Vec<&str> = batch.lines().filter(|l| l.starts_with("-I")).collect();
    assert_eq!(inserted.len(), 8, "{batch}");
    assert!(inserted[0].contains("ovn40subnets src"), "{batch}");
    assert!(inserted[7].contains("ovn-subnet-gateway,join"), "{batch}");
}

#[test]
fn reject_goes_when_kube_proxy_leaves_ipvs_mode() {
    let before = tables(&ipvs(v4_node()), Family::V4);
    let old = before.filter.hooks["INPUT"][0].rule.replacen("-p tcp ", "", 1);
    let seen = listing(&before, &[("filter", "INPUT", &old)]);
    let batch = diff_tables(&tables(&v4_node(), Family::V4), &seen);
    let deleted: Vec<&str> = batch.lines().filter(|l| l.starts_with("-D")).collect();
    assert_eq!(deleted.len(), 3, "{batch}");
    assert!(deleted.iter().all(|l| l.contains("REJECT")), "{batch}");
}

#[test]
fn a_vanished_policy_takes_its_chain_and_sets_along() {
    let with = desired_firewall(&busy_node());
    let mut view = busy_node();
    view.subnets.pop();
    let without = desired_firewall(&view);
    let (old, new) = (with.tables.v4.unwrap(), without.tables.v4.unwrap());
    let batch = diff_tables(&new, &listing(&old, &[]));
    let nat: Vec<&str> = batch.lines().take_while(|l| *l != "COMMIT").collect();
    assert_eq!(
        nat,
        [
            "*nat",
            ":OVN-NAT-POLICY - [0:0]",
            ":OVN-NAT-PSUBNET-0000000ruled - [0:0]",
            "-X OVN-NAT-PSUBNET-0000000ruled",
        ]
    );
    let sets = diff_sets(&without.ipsets, &diff_sets(&with.ipsets, "").before);
    assert!(sets.after.contains("destroy ovn40natpr-aaaaaaaaaaaa-src\n"), "{}", sets.after);
}

#[test]
fn family_that_the_agent_lost_is_cleaned() {
    let seen = listing(&tables(&dual_node(), Family::V6), &[]);
    let firewall = desired_firewall(&v4_node());
    let batch = diff_tables(firewall.tables.v6.as_ref().unwrap(), &seen);
    assert!(batch.contains("-X OVN-MASQUERADE\n"), "{batch}");
    assert_eq!(diff_tables(&Tables::default(), ""), "");
}

#[test]
fn counters_are_read_from_the_listing() {
    let text = "*filter\n\
        [3:252] -A FORWARD -s 10.16.0.0/16 -m comment --comment \"ovn-subnet-gateway,ovn-default\"\n\
        [5:420] -A FORWARD -d fd00:10:16::/112 -m comment --comment \"ovn-subnet-gateway,a.b\"\n\
        [9:99] -A FORWARD -m set --match-set ovn40subnets src -j ACCEPT\n\
        COMMIT\n";
    let seen = parse_counters(text);
    assert_eq!(seen.len(), 2);
    assert_eq!((&*seen[0].subnet, seen[0].direction), ("ovn-default", Direction::Egress));
    assert_eq!((seen[0].packets, seen[0].bytes), (3, 252));
    assert_eq!((&*seen[1].subnet, seen[1].direction), ("a.b", Direction::Ingress));
    assert_eq!(&*seen[1].cidr, "fd00:10:16::/112");
}

/// iptables-save of other versions quotes more and leaves full masks out.
#[test]
fn equal_rules_in_another_spelling_need_no_operation() {
    let tables = tables(&v4_node(), Family::V4);
    let seen = listing(&tables, &[])
        .replace("0x0/0xffffffff", "0x0")
        .replace("--comment ovn", "--comment \"ovn")
        .replace("[0:0] -A", "-A");
    assert_eq!(diff_tables(&tables, &seen), "");
}

/// iptables-nft-save cannot print a table with native nft rules; what is unseen is not judged.
#[test]
fn incompatible_table_is_left_alone() {
    let tables = tables(&v4_node(), Family::V4);
    let seen = "# Table `nat' is incompatible, use 'nft' tool.\n";
    let batch = diff_tables(&tables, seen);
    assert!(!batch.contains("*nat") && batch.contains("*filter"), "{batch}");
}
