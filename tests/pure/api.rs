//! The Kubernetes surface.

mod fuzz;
mod in_force;
mod names;
mod others;
mod pod;
mod selectors;
mod subnet;
mod subnet_conflicts;
mod vpc;

use kube_ovn::api::{Invalid, Settings, crd};
use kube_ovn::net::DualStack;

fn settings() -> Settings {
    Settings {
        cluster_router: "ovn-cluster".into(),
        default_subnet: "ovn-default".into(),
        node_switch: "join".into(),
        service_cidrs: DualStack::parse_cidrs("10.96.0.0/12,fd00:10:96::/108").unwrap(),
        api_server: None,
        pod_nic_type: "veth-pair".into(),
        enable_lb: true,
        enable_np: true,
        load_balancers: Default::default(),
        enable_anp: false,
        keep_vm_ip: true,
        node_local_dns: vec![],
        network_type: "geneve".into(),
        enable_ipsec: false,
        external: Default::default(),
    }
}

fn subnet(name: &str, cidr: &str) -> crd::Subnet {
    crd::Subnet::new(name, crd::SubnetSpec { cidr_block: cidr.into(), ..Default::default() })
}

/// The only finding; it names all of `parts`.
#[track_caller]
fn expect_finding(found: &[Invalid], parts: &[&str]) {
    let fits = found.iter().any(|f| parts.iter().all(|part| f.message.contains(part)));
    assert!(fits, "no finding with {parts:?} in {found:#?}");
}
