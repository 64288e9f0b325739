//! IPs, pools, nodes, namespaces.

use k8s_openapi::api::core::v1 as core;
use kube_ovn::api::{
    crd,
    parse::{parse_ip, parse_ippool, parse_namespace, parse_node, reason},
};
use serde_json::json;

use super::expect_finding;

fn ip(change: impl FnOnce(&mut crd::IpSpec)) -> crd::Ip {
    let mut spec = crd::IpSpec { subnet: "s1".into(), ..Default::default() };
    change(&mut spec);
    crd::Ip::new("a.d", spec)
}

#[test]
fn addresses_of_an_ip() {
    let both = parse_ip(&ip(|s| {
        s.v4_ip_address = "10.16.0.5".into();
        s.v6_ip_address = "fd00::5".into();
        s.ip_address = "ignored".into();
        s.mac_address = "00:00:00:53:6b:b6".into();
    }));
    let both = both.unwrap();
    assert_eq!(both.addresses.to_string(), "10.16.0.5,fd00::5");
    assert_eq!(both.mac.unwrap().to_string(), "00:00:00:53:6b:b6");
    let joint = parse_ip(&ip(|s| s.ip_address = "fd00::5,10.16.0.5".into())).unwrap();
    assert_eq!(joint.addresses.to_string(), "10.16.0.5,fd00::5");
    let reservation = parse_ip(&ip(|_| {})).unwrap();
    assert!(reservation.addresses.is_empty() && reservation.mac.is_none());
    // IPAM-only attachments have no MAC.
    assert!(parse_ip(&ip(|s| s.ip_address = "10.16.0.5".into())).unwrap().mac.is_none());
}

#[test]
fn bad_ips() {
    let found = parse_ip(&ip(|s| {
        s.subnet = "".into();
        s.v4_ip_address = "fd00::5".into();
        s.v6_ip_address = "x".into();
        s.mac_address = "y".into();
    }))
    .unwrap_err();
    assert_eq!(found.len(), 4);
    expect_finding(&found, &["spec.v4IpAddress", "fd00::5"]);
    expect_finding(&found, &["spec.v6IpAddress", "x"]);
    expect_finding(&found, &["spec.macAddress", "y"]);
    expect_finding(&found, &["spec.subnet"]);
}

#[test]
fn reserved_by_label() {
    let mut raw = ip(|_| {});
    for (value, reserved) in [("true", true), ("false", false), ("", false)] {
        let label = ("ovn.kubernetes.io/ip_reserved".to_owned(), value.to_owned());
        raw.metadata.labels = Some([label].into());
        assert_eq!(parse_ip(&raw).unwrap().reserved, reserved);
    }
}

#[test]
fn pools() {
    let pool = |ips: &[&str]| {
        let ips = ips.iter().map(|i| i.to_string()).collect();
        let spec = crd::IpPoolSpec { subnet: "s1".into(), ips, ..Default::default() };
        parse_ippool(&crd::IpPool::new("p", spec))
    };
    let ranges =
        pool(&["10.0.0.5", "10.0.0.7..10.0.0.9", "10.0.1.0/30", "fd00::1"]).unwrap().ranges;
    let texts: Vec<_> = ranges.iter().map(|r| r.to_string()).collect();
    assert_eq!(texts, ["10.0.0.5", "10.0.0.7-10.0.0.9", "10.0.1.0-10.0.1.3", "fd00::1"]);
    for bad in ["10.0.0.261", "10.0.0.9..10.0.0.7", "10.0.0.1..fd00::1", ""] {
        let found = pool(&["10.0.0.5", bad]).unwrap_err();
        assert_eq!(found[0].reason, reason::POOL);
        expect_finding(&found, &["spec.ips", &format!("{bad:?}")]);
    }
}

/// Annotation `ip_pool` would take the name for an address.
#[test]
fn a_pool_is_not_named_like_an_address() {
    let spec = || crd::IpPoolSpec {
        subnet: "s1".into(),
        ips: vec!["10.0.0.5".into()],
        ..Default::default()
    };
    let found = parse_ippool(&crd::IpPool::new("10.0.0.5", spec())).unwrap_err();
    expect_finding(&found, &["metadata.name", "10.0.0.5", "another name"]);
    assert!(parse_ippool(&crd::IpPool::new("10.0.0.5-pool", spec())).is_ok());
}

#[test]
fn node() -> serde_json::Result<()> {
    let raw: core::Node = serde_json::from_value(json!({
        "metadata": {
            "name": "n1", "uid": "u",
            "annotations": {
                "ovn.kubernetes.io/chassis": "c",
                "net1.provider-network.kubernetes.io/interface": "eth1",
                "node.alpha.kubernetes.io/ttl": "0",
            },
        },
        "status": {
            "addresses": [
                {"type": "Hostname", "address": "n1"},
                {"type": "InternalIP", "address": "not an address"},
                {"type": "InternalIP", "address": "172.18.0.2"},
                {"type": "InternalIP", "address": "172.18.0.3"},
                {"type": "InternalIP", "address": "fc00::2"},
                {"type": "ExternalIP", "address": "192.0.2.1"},
            ],
            "conditions": [
                {"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": "True"},
            ],
        },
    }))?;
    let node = parse_node(&raw);
    assert_eq!(node.internal_ips.to_string(), "172.18.0.2,fc00::2");
    assert!(node.ready);
    assert_eq!(node.annotations.len(), 2);
    let bare = parse_node(&core::Node::default());
    assert!(!bare.ready && bare.internal_ips.is_empty());
    Ok(())
}

/// The kubelet's heartbeat is no change of ours.
#[test]
fn heartbeats_change_nothing() -> serde_json::Result<()> {
    let node = |time: &str| -> serde_json::Result<core::Node> {
        serde_json::from_value(json!({
            "metadata": {"name": "n1", "resourceVersion": time},
            "status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": time}]},
        }))
    };
    let (a, b) = (node("2025-01-01T00:00:00Z")?, node("2025-01-01T00:00:10Z")?);
    assert_eq!(parse_node(&a), parse_node(&b));
    Ok(())
}

#[test]
fn namespace() -> serde_json::Result<()> {
    let raw: core::Namespace = serde_json::from_value(json!({
        "metadata": {
            "name": "d", "deletionTimestamp": "2025-01-01T00:00:00Z",
            "labels": {"a": "b"},
            "annotations": {"ovn.kubernetes.io/logical_switch": "s1", "other": "x"},
        },
    }))?;
    let namespace = parse_namespace(&raw);
    assert!(namespace.deleting);
    assert_eq!((namespace.labels.len(), namespace.annotations.len()), (1, 1));
    Ok(())
}
