//! Defaults and rules of Subnets.

use kube_ovn::{
    api::{
        GatewayType, Invalid, Subnet, crd,
        parse::{defaulted_subnet_spec, parse_subnet, reason, subnet_defaults},
    },
    net::IpRange,
};

use super::{expect_finding, settings, subnet};

fn parsed(raw: &crd::Subnet) -> Subnet {
    parse_subnet(raw, &settings()).unwrap()
}

fn refused(raw: &crd::Subnet) -> Vec<Invalid> {
    let found = parse_subnet(raw, &settings()).unwrap_err();
    assert!(found.iter().all(|f| f.reason == reason::SUBNET));
    found
}

fn with(cidr: &str, change: impl FnOnce(&mut crd::SubnetSpec)) -> crd::Subnet {
    let mut raw = subnet("s1", cidr);
    change(&mut raw.spec);
    raw
}

fn excluded(cidr: &str, entries: &[&str]) -> Vec<String> {
    let raw = with(cidr, |s| s.exclude_ips = entries.iter().map(|e| e.to_string()).collect());
    parsed(&raw).excludes.iter().map(IpRange::to_string).collect()
}

#[test]
fn defaults_of_an_empty_spec() {
    let spec = defaulted_subnet_spec(&subnet("s1", "10.16.3.7/16"), &settings());
    assert_eq!(spec.cidr_block, "10.16.0.0/16");
    assert_eq!(spec.gateway, "10.16.0.1");
    assert_eq!(spec.exclude_ips, ["10.16.0.1"]);
    assert_eq!(spec.protocol, "IPv4");
    assert_eq!(spec.provider, "ovn");
    assert_eq!(spec.vpc, "ovn-cluster");
    assert_eq!(spec.gateway_type, "distributed");
    assert_eq!(spec.enable_lb, Some(true));
    assert!(!spec.default);
}

/// A merge patch without the field would leave the nodes of a centralized gateway in the spec.
#[test]
fn a_switch_to_a_distributed_gateway_clears_its_nodes() {
    let raw = with("10.1.0.0/24", |s| {
        s.gateway_type = "distributed".into();
        s.gateway_node = "node1".into();
        s.u2o_interconnection_ip = "10.1.0.9".into();
    });
    let patch = subnet_defaults(&raw, &settings()).unwrap();
    for field in ["gatewayNode", "u2oInterconnectionIP"] {
        let cleared = patch.get(field).is_some_and(|v| v.is_null() || v == "");
        assert!(cleared, "{field} in {patch}");
    }
    let filled = crd::Subnet::new("s1", defaulted_subnet_spec(&raw, &settings()));
    assert_eq!(subnet_defaults(&filled, &settings()), None);
}

#[test]
fn the_address_of_the_api_server_is_no_pods() {
    let host: std::net::IpAddr = "172.30.0.7".parse().unwrap();
    let given = kube_ovn::api::Settings { api_server: Some(host), ..settings() };
    let found = parse_subnet(&subnet("s1", "172.30.0.0/24"), &given).unwrap_err();
    expect_finding(&found, &["spec.cidrBlock", "172.30.0.7", "API server"]);
    assert!(parse_subnet(&subnet("s1", "172.30.0.0/24"), &settings()).is_ok());
}

#[test]
fn defaults_of_the_join_subnet() {
    let mut join = subnet("join", "100.64.0.0/16");
    join.spec.enable_lb = Some(true);
    let spec = defaulted_subnet_spec(&join, &settings());
    assert_eq!(spec.gateway_type, "");
    assert_eq!(spec.enable_lb, None);
    assert_eq!(parsed(&join).gateway_type, None);
}

#[test]
fn defaults_outside_the_default_vpc() {
    let custom = with("10.1.0.0/24", |s| {
        s.vpc = "v1".into();
        s.default = true;
    });
    let spec = defaulted_subnet_spec(&custom, &settings());
    assert!(spec.default, "only the default VPC has its default by flag");
    assert_eq!(spec.gateway_type, "");
    let other = with("10.1.0.0/24", |s| s.provider = "net1.default".into());
    assert_eq!(defaulted_subnet_spec(&other, &settings()).vpc, "", "address management only");
    let attached = with("10.1.0.0/24", |s| s.provider = "net1.default.ovn".into());
    assert_eq!(defaulted_subnet_spec(&attached, &settings()).vpc, "ovn-cluster");
}

#[test]
fn only_the_configured_subnet_is_the_default() {
    let own = with("10.1.0.0/24", |s| s.default = true);
    assert!(!defaulted_subnet_spec(&own, &settings()).default);
    let mut configured = subnet("ovn-default", "10.16.0.0/16");
    configured.spec.default = true;
    assert!(defaulted_subnet_spec(&configured, &settings()).default);
}

#[test]
fn dependent_fields_are_cleared() {
    let raw = with("10.1.0.0/24", |s| {
        s.gateway_node = "node1".into();
        s.u2o_interconnection = true;
        s.u2o_interconnection_ip = "10.1.0.9".into();
    });
    let spec = defaulted_subnet_spec(&raw, &settings());
    assert_eq!(spec.gateway_node, "", "distributed");
    assert!(!spec.u2o_interconnection, "no vlan");
    assert_eq!(spec.u2o_interconnection_ip, "");
    let underlay = with("10.1.0.0/24", |s| {
        s.vlan = "v".into();
        s.u2o_interconnection = true;
        s.u2o_interconnection_ip = "10.1.0.9".into();
    });
    assert_eq!(defaulted_subnet_spec(&underlay, &settings()).u2o_interconnection_ip, "10.1.0.9");
}

#[test]
fn dual_stack_gateway_is_completed() {
    let raw = with("10.16.0.0/16,fd00::/112", |s| s.gateway = "fd00::9".into());
    let spec = defaulted_subnet_spec(&raw, &settings());
    assert_eq!(spec.gateway, "10.16.0.1,fd00::9");
    assert_eq!(spec.protocol, "Dual");
    assert_eq!(spec.exclude_ips, ["10.16.0.1", "fd00::9"]);
}

/// Upstream never normalised the order and mis-read `v6,v4`.
#[test]
fn trap_v6_v4_order_is_normalised() {
    let raw = with("fd00::/112,10.16.0.0/16", |s| s.gateway = "fd00::1,10.16.0.1".into());
    let spec = defaulted_subnet_spec(&raw, &settings());
    assert_eq!(spec.cidr_block, "10.16.0.0/16,fd00::/112");
    assert_eq!(spec.gateway, "10.16.0.1,fd00::1");
    assert_eq!(parsed(&raw).cidrs.to_string(), "10.16.0.0/16,fd00::/112");
}

/// A gateway that is not in the canonical form is the gateway all the same.
#[test]
fn trap_v6_gateway_in_another_form_is_recognised() {
    let raw = with("2001:db8::/64", |s| {
        s.gateway = "2001:db8:0:0::0001".into();
        s.exclude_ips = vec!["2001:0db8::1".into(), "2001:db8::0:2..2001:db8::4".into()];
    });
    let spec = defaulted_subnet_spec(&raw, &settings());
    assert_eq!(spec.gateway, "2001:db8::1");
    assert_eq!(spec.exclude_ips, ["2001:db8::1", "2001:db8::2..2001:db8::4"]);
}

/// Upstream's integer conversion printed `::a.b.c.d` as IPv4.
#[test]
fn trap_v6_below_32_bits_stays_v6() {
    let found = refused(&subnet("s1", "::/96"));
    expect_finding(&found, &["spec.cidrBlock", "unspecified"]);
    let spec = defaulted_subnet_spec(&subnet("s1", "::10:0/112"), &settings());
    assert_eq!(spec.gateway, "::10:1");
    assert_eq!(spec.protocol, "IPv6");
}

#[test]
fn excludes_are_merged_sorted_and_hold_the_gateway() {
    let raw = with("10.16.0.0/24", |s| {
        s.exclude_ips =
            ["10.16.0.9", "10.16.0.20..10.16.0.30", "10.16.0.9", "10.16.0.25..10.16.0.40"]
                .map(str::to_owned)
                .to_vec();
    });
    let spec = defaulted_subnet_spec(&raw, &settings());
    assert_eq!(spec.exclude_ips, ["10.16.0.1", "10.16.0.20..10.16.0.40", "10.16.0.9"]);
    let covered = with("10.16.0.0/24", |s| s.exclude_ips = vec!["10.16.0.1..10.16.0.3".into()]);
    assert_eq!(defaulted_subnet_spec(&covered, &settings()).exclude_ips, ["10.16.0.1..10.16.0.3"]);
}

/// The table of the allocator's helpers.
#[test]
fn excludes_are_expanded_to_usable_addresses() {
    let cidr = "10.16.0.23/24";
    assert_eq!(
        excluded(cidr, &["10.16.0.0..10.16.0.20", "10.16.0.23", "10.16.0.255"]),
        ["10.16.0.1-10.16.0.20", "10.16.0.23"]
    );
    assert_eq!(excluded(cidr, &["10.16.0.1..10.16.1.10"]), ["10.16.0.1-10.16.0.254"]);
    assert_eq!(excluded(cidr, &["10.16.0.10..10.16.0.10"]), ["10.16.0.1", "10.16.0.10"]);
    assert_eq!(excluded("192.168.0.23/31", &["192.168.0.22"]), ["192.168.0.22"]);
    assert_eq!(excluded("fd00::23/127", &[]), ["fd00::22"]);
    // Of another family or another range: kept in the spec, without effect.
    assert_eq!(excluded(cidr, &["fd00::1", "10.17.0.1"]), ["10.16.0.1"]);
}

#[test]
fn exclude_entries_of_other_forms() {
    assert_eq!(
        excluded("10.16.0.0/24", &[" 10.16.0.5 .. 10.16.0.7 "]),
        ["10.16.0.1", "10.16.0.5-10.16.0.7"],
        "blanks do not matter"
    );
    for entry in [
        "10.16.0.20..10.16.0.1",
        "10.16.0.1...10.16.0.5",
        "10.16.0.1..10.16.0.5..10.16.0.9",
        "10.16.0.1..",
        "..10.16.0.1",
        "..",
        "10.16.0.1..fd00::1",
        "10.16.0.1-10.16.0.5",
        "10.16.0.0/28",
        "10.16.0.256",
        "",
        "x",
        "FD00::1",
    ] {
        let raw = with("10.16.0.0/24", |s| s.exclude_ips = vec![entry.into()]);
        expect_finding(&refused(&raw), &["spec.excludeIps", &format!("{entry:?}")]);
        // What users must correct is not rewritten behind their back.
        assert_eq!(defaulted_subnet_spec(&raw, &settings()).exclude_ips, [entry]);
    }
}

/// A stored /32 made upstream's allocator panic at every start.
#[test]
fn bug_host_prefixes_are_refused() {
    for cidr in ["10.0.0.1/32", "fd00::1/128", "10.0.0.0/24,fd00::1/128"] {
        expect_finding(&refused(&subnet("s1", cidr)), &["spec.cidrBlock", cidr, "shorter prefix"]);
    }
}

#[test]
fn point_to_point_prefixes_are_fine() {
    for (cidr, gateway) in [("192.168.0.23/31", "192.168.0.22"), ("fd00::23/127", "fd00::22")] {
        assert_eq!(parsed(&subnet("s1", cidr)).gateways.to_string(), gateway);
    }
}

#[test]
fn rule_1_gateway() {
    for (gateway, parts) in [
        ("10.17.0.1", ["lies outside", "10.16.0.0/16"]),
        ("10.16.0.0", ["first or last", "10.16.0.1"]),
        ("10.16.255.255", ["first or last", "10.16.0.1"]),
        ("fd00::1", ["no range of that family", "10.16.0.0/16"]),
        ("10.16.0", ["not an IP", "10.16.0"]),
        ("10.16.0.1,10.16.0.2", ["two addresses of one family", "10.16.0.2"]),
    ] {
        let raw = with("10.16.0.0/16", |s| s.gateway = gateway.into());
        let found = refused(&raw);
        expect_finding(&found, &["spec.gateway", &format!("{gateway:?}")]);
        expect_finding(&found, &parts);
    }
    // The last address of an IPv6 range is not for a gateway either.
    let raw = with("fd00::/120", |s| s.gateway = "fd00::ff".into());
    expect_finding(&refused(&raw), &["spec.gateway", "first or last"]);
}

#[test]
fn rule_2_special_ranges() {
    for (cidr, kind) in [
        ("224.1.0.0/16", "multicast"),
        ("127.0.0.0/24", "loopback"),
        ("0.0.0.0/0", "broadcast"),
        ("0.0.0.0/8", "zero"),
        ("169.254.3.0/24", "link-local"),
        ("255.255.255.0/24", "broadcast"),
        ("::/0", "unspecified"),
        ("fe80::/64", "link-local"),
        ("ff02::/16", "multicast"),
    ] {
        let found = refused(&subnet("s1", cidr));
        expect_finding(&found, &["spec.cidrBlock", cidr]);
        assert!(found.iter().any(|f| f.message.contains(kind)), "{cidr}: {found:?}");
    }
}

#[test]
fn rules_3_and_5_format() {
    for cidr in ["", "10.16.0.0", "10.16.0.0/33", "10.0.0.0/8,11.0.0.0/8", "fd00::/129", "a/b", "/"]
    {
        expect_finding(&refused(&subnet("s1", cidr)), &["spec.cidrBlock", &format!("{cidr:?}")]);
    }
}

#[test]
fn upper_case_v6_is_refused_and_not_rewritten() {
    let raw = subnet("s1", "FD00::/112");
    expect_finding(&refused(&raw), &["spec.cidrBlock", "FD00::/112", "lower case"]);
    assert_eq!(defaulted_subnet_spec(&raw, &settings()).cidr_block, "FD00::/112");
    let gateway = with("fd00::/112", |s| s.gateway = "FD00::1".into());
    expect_finding(&refused(&gateway), &["spec.gateway", "FD00::1", "lower case"]);
}

#[test]
fn rule_6_allow_subnets() {
    for entry in ["10.0.0.1", "10.0.0.0/33", "FD00::/64", ""] {
        let raw = with("10.16.0.0/16", |s| s.allow_subnets = vec![entry.into()]);
        expect_finding(&refused(&raw), &["spec.allowSubnets", &format!("{entry:?}")]);
    }
    let raw = with("10.16.0.0/16", |s| s.allow_subnets = vec!["10.1.2.3/8".into()]);
    assert_eq!(parsed(&raw).allow_subnets[0].to_string(), "10.0.0.0/8");
}

#[test]
fn rules_7_to_10() {
    let raw = with("10.16.0.0/16", |s| s.gateway_type = "central".into());
    expect_finding(&refused(&raw), &["spec.gatewayType", "central", "centralized"]);
    let raw = with("10.16.0.0/16", |s| s.vpc = "s1".into());
    expect_finding(&refused(&raw), &["spec.vpc", "s1", "rename"]);
    let raw = subnet("s1", "10.0.0.0/8");
    expect_finding(&refused(&raw), &["spec.cidrBlock", "10.96.0.1", "API server"]);
    let raw = with("10.0.0.0/8", |s| s.vpc = "v1".into());
    assert_eq!(parsed(&raw).vpc.as_ref(), "v1", "other VPCs may use the Service range");
    // Rule 8: whatever protocol says, cidrBlock decides.
    let raw = with("10.16.0.0/16", |s| s.protocol = "Dual".into());
    assert_eq!(defaulted_subnet_spec(&raw, &settings()).protocol, "IPv4");
}

/// Upstream's webhook compared specs before defaulting, so a Subnet without spec.vpc was not
/// checked against the API server's address.
#[test]
fn bug_rules_see_the_defaulted_vpc() {
    expect_finding(&refused(&subnet("s1", "fd00:10:96::/112")), &["fd00:10:96::1", "API server"]);
}

/// IP objects carry the subnet's name as a label key and value.
#[test]
fn trap_subnet_name_longer_than_a_label() {
    let raw = subnet(&"s".repeat(64), "10.16.0.0/16");
    expect_finding(&refused(&raw), &["metadata.name", "63 characters"]);
    assert_eq!(parsed(&subnet(&"s".repeat(63), "10.16.0.0/16")).name.len(), 63);
}

#[test]
fn rule_11_external_egress_gateway() {
    for (value, part) in [
        ("10.9.0.1,10.9.0.2,10.9.0.3", "more than two"),
        ("10.9.0", "not an IP"),
        ("FD00::1", "lower case"),
        ("fd00::1", "another family"),
    ] {
        let raw = with("10.16.0.0/16", |s| s.external_egress_gateway = value.into());
        expect_finding(&refused(&raw), &["spec.externalEgressGateway", part]);
    }
    let raw = with("10.16.0.0/16", |s| {
        s.external_egress_gateway = "10.9.0.1".into();
        s.nat_outgoing = true;
    });
    expect_finding(&refused(&raw), &["spec.externalEgressGateway", "natOutgoing"]);
    let raw = with("10.16.0.0/16,fd00::/112", |s| {
        s.external_egress_gateway = "10.9.0.1, fd09::1".into();
        s.policy_routing_table_id = 1000;
        s.policy_routing_priority = 500;
    });
    let routing = parsed(&raw).policy_routing.unwrap();
    assert_eq!((routing.gateways.len(), routing.table, routing.priority), (2, 1000, 500));
}

#[test]
fn rule_12_vips() {
    for vip in ["10.17.0.1", "x", "FD00::1"] {
        let raw = with("10.16.0.0/16", |s| s.vips = vec![vip.into()]);
        expect_finding(&refused(&raw), &["spec.vips", vip]);
    }
    parsed(&with("10.16.0.0/16", |s| s.vips = vec!["10.16.0.9".into()]));
}

#[test]
fn rules_13_and_14() {
    let raw = with("10.16.0.0/16", |s| {
        s.vlan = "v".into();
        s.logical_gateway = true;
        s.u2o_interconnection = true;
    });
    expect_finding(&refused(&raw), &["spec.u2oInterconnection", "logicalGateway"]);
    for vlan in ["", "v"] {
        let raw = with("10.16.0.0/16", |s| {
            s.vlan = vlan.into();
            s.u2o_features.overlay_only_routing = true;
        });
        expect_finding(&refused(&raw), &["overlayOnlyRouting", "spec.vlan"]);
    }
    let raw = with("10.16.0.0/16", |s| {
        s.u2o_interconnection = true;
        s.u2o_features.overlay_only_routing = true;
    });
    expect_finding(&refused(&raw), &["overlayOnlyRouting", "spec.vlan"]);
}

#[test]
fn rule_15_nat_rules() {
    let rule = |src: &str, dst: &str| {
        let (src_ips, dst_ips) = (src.to_owned(), dst.to_owned());
        with("10.16.0.0/16", |s| {
            let matching = crd::NatMatch { src_ips, dst_ips };
            s.nat_outgoing_policy_rules = vec![crd::NatRule { action: "nat".into(), matching }];
        })
    };
    for (src, dst, part) in [
        (" , ", "", "names no address"),
        ("10.0.0.1,x", "", "not an IP"),
        ("10.0.0.1,fd00::1", "", "mixes"),
        ("10.0.0.1", "fd00::/64", "another family"),
        ("FD00::1", "", "lower case"),
    ] {
        let found = refused(&rule(src, dst));
        expect_finding(&found, &["spec.natOutgoingPolicyRules[0].match", part]);
    }
    parsed(&rule("10.0.0.1, 10.1.0.0/16", "192.168.0.0/24"));
    parsed(&rule("", ""));
}

#[test]
fn rule_16_u2o_address() {
    for (ip, part) in [
        ("10.17.0.1", "outside"),
        ("10.16.0.1", "gateway"),
        ("x", "not an IP"),
        ("FD00::1", "lower"),
    ] {
        let raw = with("10.16.0.0/16", |s| {
            s.vlan = "v".into();
            s.u2o_interconnection = true;
            s.u2o_interconnection_ip = ip.into();
        });
        expect_finding(&refused(&raw), &["spec.u2oInterconnectionIP", ip, part]);
    }
}

#[test]
fn gateway_nodes_with_egress_addresses() {
    let raw = with("10.16.0.0/16", |s| {
        s.gateway_type = "centralized".into();
        s.gateway_node = "node1:172.18.0.2, node2 ,node3:fd00::3,,".into();
    });
    let subnet = parsed(&raw);
    assert_eq!(subnet.gateway_type, Some(GatewayType::Centralized));
    let nodes: Vec<_> = subnet
        .gateway_nodes
        .iter()
        .map(|n| (n.node.to_string(), n.egress.map(|e| e.to_string()).unwrap_or_default()))
        .collect();
    let expected = [("node1", "172.18.0.2"), ("node2", ""), ("node3", "fd00::3")];
    assert_eq!(nodes, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    let raw = with("10.16.0.0/16", |s| {
        s.gateway_type = "centralized".into();
        s.gateway_node = "node1:x".into();
    });
    expect_finding(&refused(&raw), &["spec.gatewayNode", "\"x\""]);
}

#[test]
fn all_findings_are_told_at_once() {
    let raw = with("10.16.0.0/16", |s| {
        s.gateway = "10.17.0.1".into();
        s.exclude_ips = vec!["x".into()];
        s.allow_subnets = vec!["y".into()];
        s.gateway_type = "z".into();
    });
    assert_eq!(refused(&raw).len(), 4);
}
