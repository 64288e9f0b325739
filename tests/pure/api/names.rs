//! Names of annotations, ports and port groups.

use kube_ovn::{
    api::names::{self, Session, annotation, suffix},
    net::Family,
};

#[test]
fn provider_keys() {
    assert_eq!(names::provider_key("", suffix::ALLOCATED), annotation::ALLOCATED);
    assert_eq!(names::provider_key("ovn", suffix::IP_POOL), annotation::IP_POOL);
    assert_eq!(
        names::provider_key("net1.default.ovn", suffix::MAC_ADDRESS),
        "net1.default.ovn.kubernetes.io/mac_address"
    );
}

#[test]
fn trap_provider_network_keys_have_no_ovn_part() {
    assert_eq!(
        names::provider_network_key("net1", names::provider_network::READY),
        "net1.provider-network.kubernetes.io/ready"
    );
}

#[test]
fn port_names() {
    assert_eq!(names::port_name("a", "default", "ovn"), "a.default");
    assert_eq!(names::port_name("a", "default", ""), "a.default");
    assert_eq!(names::port_name("a", "default", "n.d.ovn"), "a.default.n.d.ovn");
    assert_eq!(names::node_port("k-1"), "node-k-1");
    assert_eq!(names::router_port("ovn-cluster", "join"), "ovn-cluster-join");
    assert_eq!(names::switch_port("ovn-cluster", "join"), "join-ovn-cluster");
    assert_eq!(names::u2o_port("v", "s"), "u2o-interconnection.v.s");
}

#[test]
fn set_names() {
    assert_eq!(names::node_port_group("k8s-node-1"), "node.k8s.node.1");
    assert_eq!(names::subnet_node_port_group("ovn-default", "k-1"), "ovn.default.k.1");
    assert_eq!(names::policy_port_group("allow-dns", "kube-system"), "allow.dns.kube.system");
    assert_eq!(names::policy_port_group("1st", "default"), "np1st.default");
    assert_eq!(names::u2o_exclude_set("a-b", Family::V6), "a.b.u2o_exclude_ip.ip6");
    assert_eq!(
        names::u2o_overlay_set("ovn-cluster", Family::V4),
        "ovn.cluster.u2o_overlay_cidrs.ip4"
    );
    assert_eq!(names::vpc_load_balancer("v", "tcp", Session::ClientIp), "vpc-v-tcp-sess-load");
    assert_eq!(names::vpc_load_balancer("v", "sctp", Session::None), "vpc-v-sctp-load");
}

/// Upstream wrote a raw IPv6 address as a label value, which the API server refuses.
#[test]
fn bug_ipv6_label_value_has_no_colon() -> Result<(), std::net::AddrParseError> {
    for (ip, label) in [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8::1", "2001-db8--1"),
        ("::1", "0--1"),
        ("fe80::", "fe80--0"),
        ("::", "0--0"),
    ] {
        assert_eq!(names::label_address(ip.parse()?), label);
    }
    Ok(())
}
