use std::net::IpAddr;

use kube::ResourceExt;

use crate::{
    api::{
        Invalid, Ip, IpPool, crd,
        names::{finalizer, label},
    },
    net::{DualStack, Family, IpRange},
};

use super::{
    findings::{Findings, reason},
    texts,
};

/// An IP object. One without addresses is a reservation that has not got its address yet.
pub fn parse_ip(raw: &crd::Ip) -> Result<Ip, Vec<Invalid>> {
    let mut found = Findings::new(reason::IP);
    let spec = &raw.spec;
    if spec.subnet.is_empty() {
        found.refuse("spec.subnet", "", "name the subnet of the address");
    }
    let addresses = addresses(&mut found, spec);
    let mac = match spec.mac_address.as_str() {
        "" => None,
        mac => found.take("spec.macAddress", mac, mac.parse()),
    };
    found.or(Ip {
        name: raw.name_any().into(),
        pod_name: spec.pod_name.as_str().into(),
        namespace: spec.namespace.as_str().into(),
        subnet: spec.subnet.as_str().into(),
        node: spec.node_name.as_str().into(),
        addresses,
        mac,
        pod_type: spec.pod_type.as_str().into(),
        reserved: raw.labels().get(label::IP_RESERVED).is_some_and(|v| v == "true"),
        managed: raw.finalizers().iter().any(|f| finalizer::OURS.contains(&f.as_str())),
        deleting: raw.metadata.deletion_timestamp.is_some(),
    })
}

/// The fields per family; objects that lack both (made by hand) have the joint one.
fn addresses(found: &mut Findings, spec: &crd::IpSpec) -> DualStack<IpAddr> {
    let (v4, v6) = (spec.v4_ip_address.as_str(), spec.v6_ip_address.as_str());
    if v4.is_empty() && v6.is_empty() {
        return match spec.ip_address.as_str() {
            "" => DualStack::default(),
            both => found
                .take("spec.ipAddress", both, DualStack::parse_addresses(both))
                .unwrap_or_default(),
        };
    }
    let mut addresses = DualStack::default();
    for (family, field, value) in
        [(Family::V4, "spec.v4IpAddress", v4), (Family::V6, "spec.v6IpAddress", v6)]
    {
        if value.is_empty() {
            continue;
        }
        match crate::net::parse_ip(value) {
            Ok(ip) if Family::of(ip) == family => addresses.set(family, Some(ip)),
            Ok(_) => found.refuse(field, value, "is of the other family"),
            Err(error) => found.refuse(field, value, error),
        }
    }
    addresses
}

/// An IPPool; members outside the subnet are the allocator's to refuse.
pub fn parse_ippool(raw: &crd::IpPool) -> Result<IpPool, Vec<Invalid>> {
    let mut found = Findings::new(reason::POOL);
    let (name, spec) = (raw.name_any(), &raw.spec);
    // Annotation ip_pool would take it for a list of one address.
    if crate::net::parse_ip(&name).is_ok() {
        let remedy = "is an address, so no pod could ask for the pool; choose another name";
        found.refuse("metadata.name", &name, remedy);
    }
    if spec.subnet.is_empty() {
        found.refuse("spec.subnet", "", "name the subnet of the pool");
    }
    let ranges =
        spec.ips.iter().filter_map(|e| found.take("spec.ips", e, IpRange::parse(e))).collect();
    found.or(IpPool {
        name: name.into(),
        subnet: spec.subnet.as_str().into(),
        namespaces: texts(&spec.namespaces),
        ranges,
    })
}
