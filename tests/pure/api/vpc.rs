//! VPCs.

use kube_ovn::api::{Invalid, PolicyAction, Vpc, crd, parse::parse_vpc};

use super::expect_finding;

fn parsed(change: impl FnOnce(&mut crd::VpcSpec)) -> (Vpc, Vec<Invalid>) {
    let mut spec = crd::VpcSpec::default();
    change(&mut spec);
    parse_vpc(&crd::Vpc::new("v1", spec))
}

fn route(policy: &str, cidr: &str, next_hop: &str) -> crd::StaticRoute {
    crd::StaticRoute {
        policy: policy.into(),
        cidr: cidr.into(),
        next_hop_ip: next_hop.into(),
        ..Default::default()
    }
}

fn policy(priority: i64, action: &str, next_hop: &str) -> crd::PolicyRoute {
    crd::PolicyRoute {
        priority,
        matching: "ip4".into(),
        action: action.into(),
        next_hop_ip: next_hop.into(),
    }
}

#[test]
fn static_routes() {
    let (vpc, found) = parsed(|s| {
        s.static_routes = vec![
            route("", "10.0.0.7/8", "10.0.0.1"),
            route("policySrc", "10.0.0.9", "10.0.0.1"),
            route("policyDst", "fd00::/64", "fd00::1"),
        ];
    });
    assert!(found.is_empty(), "{found:?}");
    let texts: Vec<_> =
        vpc.static_routes.iter().map(|r| format!("{} {}", r.by_source, r.prefix)).collect();
    assert_eq!(texts, ["false 10.0.0.0/8", "true 10.0.0.9/32", "false fd00::/64"]);
}

/// One typing error must not cost the VPC its other routes.
#[test]
fn bad_routes_are_left_out_and_told() {
    for (bad, parts) in [
        (route("dst", "10.0.0.0/8", "10.0.0.1"), ["staticRoutes[1].policy", "policyDst"]),
        (route("", "10.0.0", "10.0.0.1"), ["staticRoutes[1].cidr", "no address and no CIDR"]),
        (route("", "10.0.0.0/8", "10.0.0.1,10.0.0.2"), ["staticRoutes[1].nextHopIP", "10.0.0.2"]),
        (route("", "10.0.0.0/8", ""), ["staticRoutes[1].nextHopIP", "not an IP"]),
        (route("", "10.0.0.0/8", "fd00::1"), ["staticRoutes[1].nextHopIP", "another family"]),
    ] {
        let (vpc, found) =
            parsed(|s| s.static_routes = vec![route("", "10.1.0.0/16", "10.0.0.1"), bad]);
        assert_eq!(vpc.static_routes.len(), 1);
        assert_eq!(found.len(), 1);
        expect_finding(&found, &parts);
    }
}

/// Upstream stored a comma list as one next hop, which northd refused.
#[test]
fn bug_several_next_hops_of_a_policy() {
    let (vpc, found) = parsed(|s| {
        s.policy_routes = vec![policy(10, "reroute", "10.0.0.1, 10.0.0.2"), policy(9, "drop", "x")];
    });
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(vpc.policy_routes[0].next_hops.len(), 2);
    assert_eq!(vpc.policy_routes[1].action, PolicyAction::Drop);
    assert!(vpc.policy_routes[1].next_hops.is_empty(), "only reroute has next hops");
}

#[test]
fn bad_policies_are_left_out_and_told() {
    for (bad, parts) in [
        (policy(1, "accept", ""), ["action", "allow, drop or reroute"]),
        (policy(-1, "drop", ""), ["priority", "32767"]),
        (policy(32768, "drop", ""), ["priority", "32767"]),
        (policy(i64::MAX, "drop", ""), ["priority", "32767"]),
        (policy(1, "reroute", ""), ["nextHopIP", "reroute needs"]),
        (policy(1, "reroute", "10.0.0.1,x"), ["nextHopIP", "not an IP"]),
        (policy(1, "reroute", "10.0.0.1,fd00::1"), ["nextHopIP", "one family"]),
    ] {
        let (vpc, found) = parsed(|s| s.policy_routes = vec![bad]);
        assert!(vpc.policy_routes.is_empty());
        expect_finding(&found, &["spec.policyRoutes[0]"]);
        expect_finding(&found, &parts);
    }
}

#[test]
fn peerings_and_labels() {
    let (_, found) = parsed(|s| {
        s.vpc_peerings =
            vec![crd::VpcPeering { local_connect_ip: "10.0.0.1".into(), ..Default::default() }];
    });
    expect_finding(&found, &["spec.vpcPeerings[0].localConnectIP", "10.0.0.1"]);
    let mut raw = crd::Vpc::new("v1", crd::VpcSpec::default());
    raw.metadata.labels =
        Some([("ovn.kubernetes.io/vpc_external".to_owned(), "true".to_owned())].into());
    assert!(parse_vpc(&raw).0.external);
}
