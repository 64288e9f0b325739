//! Whatever users write: no panic, and defaults that settle.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use kube_ovn::api::{
    crd,
    parse::{
        defaulted_subnet_spec, fixed_addresses, is_ours, parse_ip, parse_ippool, parse_pod,
        parse_pool_wish, parse_subnet, parse_vpc,
    },
};
use proptest::prelude::*;

use super::settings;

/// Text near enough to addresses to pass the first checks now and then.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[0-9a-fA-F:./,; -]{0,24}",
        2 => ".{0,12}",
        2 => (0u32.., 0u8..=33).prop_map(|(a, p)| format!("{}/{p}", std::net::Ipv4Addr::from(a))),
        2 => (0u128.., 0u8..=129).prop_map(|(a, p)| format!("{}/{p}", std::net::Ipv6Addr::from(a))),
        2 => (0u32.., 0u32..300)
            .prop_map(|(a, n)| {
                let last = std::net::Ipv4Addr::from(a.saturating_add(n));
                format!("{}..{last}", std::net::Ipv4Addr::from(a))
            }),
        1 => (0u128.., 0u8..=128, 0u32.., 0u8..=32).prop_map(|(a, p, b, q)| {
            format!("{}/{p},{}/{q}", std::net::Ipv6Addr::from(a), std::net::Ipv4Addr::from(b))
        }),
        1 => Just(String::new()),
    ]
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(text(), 0..4)
}

prop_compose! {
    fn spec()(
        cidr_block in text(), gateway in text(), exclude_ips in texts(), vips in texts(),
        allow_subnets in texts(), external_egress_gateway in text(), gateway_node in text(),
        u2o_interconnection_ip in text(), src_ips in text(), dst_ips in text(),
        words in prop::collection::vec("[a-z.]{0,6}", 3),
        flags in prop::collection::vec(any::<bool>(), 5),
        mtu in any::<i64>(),
    ) -> crd::SubnetSpec {
        let matching = crd::NatMatch { src_ips, dst_ips };
        crd::SubnetSpec {
            cidr_block, gateway, exclude_ips, vips, allow_subnets, external_egress_gateway,
            gateway_node, u2o_interconnection_ip, mtu,
            policy_routing_table_id: mtu,
            provider: words[0].clone(), vpc: words[1].clone(), vlan: words[2].clone(),
            u2o_interconnection: flags[0], nat_outgoing: flags[1], logical_gateway: flags[2],
            default: flags[3],
            gateway_type: if flags[4] { "centralized".into() } else { String::new() },
            nat_outgoing_policy_rules: vec![crd::NatRule { matching, action: String::new() }],
            ..Default::default()
        }
    }
}

proptest! {
    #[test]
    fn subnets(spec in spec(), name in "[a-z]{1,3}|join|ovn-default") {
        let raw = crd::Subnet::new(&name, spec);
        let once = crd::Subnet::new(&name, defaulted_subnet_spec(&raw, &settings()));
        let twice = defaulted_subnet_spec(&once, &settings());
        prop_assert_eq!(&once.spec, &twice, "defaults settle at once");
        let parsed = parse_subnet(&raw, &settings());
        prop_assert_eq!(&parsed, &parse_subnet(&once, &settings()));
        if let Ok(subnet) = parsed {
            for (family, gateway) in subnet.gateways.iter() {
                let cidr = subnet.cidrs.get(family);
                prop_assert!(cidr.is_some_and(|c| c.contains(*gateway)));
                prop_assert!(subnet.excludes.iter().any(|r| r.contains(*gateway)));
            }
            prop_assert!(subnet.gateways.families().eq(subnet.cidrs.families()));
        }
    }

    #[test]
    fn annotations(
        pairs in prop::collection::vec(("ovn|net1.d.ovn|[a-z.]{0,5}", "[a-z_]{0,9}|ip_address|ip_pool|cidr|mac_address|ingress_rate", text()), 0..6),
    ) {
        let annotations: BTreeMap<String, String> = pairs
            .into_iter()
            .map(|(provider, suffix, value)| (format!("{provider}.kubernetes.io/{suffix}"), value))
            .collect();
        let mut raw = core::Pod::default();
        raw.metadata.annotations = Some(annotations);
        let pod = parse_pod(&raw);
        prop_assert!(pod.annotations.keys().all(|k| is_ours(k)));
    }

    #[test]
    fn other_texts(a in text(), b in text(), c in texts(), n in any::<i64>()) {
        let _ = fixed_addresses(&a);
        let _ = parse_pool_wish(&a);
        let route = crd::StaticRoute { cidr: a.clone(), next_hop_ip: b.clone(), ..Default::default() };
        let policy = crd::PolicyRoute {
            priority: n, matching: b.clone(), action: "reroute".into(), next_hop_ip: a.clone(),
        };
        let _ = parse_vpc(&crd::Vpc::new("v", crd::VpcSpec {
            static_routes: vec![route], policy_routes: vec![policy], ..Default::default()
        }));
        let _ = parse_ip(&crd::Ip::new("i", crd::IpSpec {
            subnet: "s".into(), ip_address: a.clone(), v4_ip_address: b, mac_address: a,
            ..Default::default()
        }));
        let _ = parse_ippool(&crd::IpPool::new("p", crd::IpPoolSpec {
            subnet: "s".into(), ips: c, ..Default::default()
        }));
    }
}
