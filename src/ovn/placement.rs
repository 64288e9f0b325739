//! Which subnets a namespace and a pod belong to.

use crate::{
    api::{IpPool, Kind, Namespace, Pod, Settings, Subnet, Text, Vpc},
    store::{Problem, View},
};

/// Subnets of a namespace, the preferred one first: a custom VPC's default subnet, subnets that
/// list the namespace, subnets that select it, else the default subnet of the VPC that binds the
/// namespace, else the cluster's. Order is by name within a group (upstream: random).
pub fn namespace_subnets<'a>(view: &View<'a>, namespace: &Namespace) -> Vec<&'a Subnet> {
    let Some(settings) = view.get::<Settings>("") else { return Vec::new() };
    let mut chosen: Vec<&Subnet> = Vec::new();
    let mut push = |subnet: &'a Subnet| {
        if !chosen.iter().any(|s| s.name == subnet.name) {
            chosen.push(subnet);
        }
    };
    let vpcs = view.all::<Vpc>();
    let bound = vpcs
        .iter()
        .find(|v| v.name != settings.cluster_router && v.namespaces.contains(&namespace.name));
    let vpc_default = bound.and_then(|v| v.default_subnet.as_ref());
    if let Some(subnet) = vpc_default.and_then(|name| view.get::<Subnet>(name)) {
        push(subnet);
    }
    let subnets = view.all::<Subnet>();
    let usable = || subnets.iter().filter(|s| !s.deleting && s.is_ovn());
    for subnet in usable().filter(|s| s.namespaces.contains(&namespace.name)) {
        push(subnet);
    }
    for subnet in
        usable().filter(|s| s.namespace_selectors.iter().any(|x| x.matches(&namespace.labels)))
    {
        push(subnet);
    }
    if chosen.is_empty() {
        let of_vpc = bound.and_then(|v| subnets.iter().find(|s| s.vpc == v.name && s.default));
        let fallback = of_vpc.copied().or_else(|| view.get::<Subnet>(&settings.default_subnet));
        chosen.extend(fallback);
    }
    chosen
}

/// Subnets in which the default NIC of a pod may get its address, in order of preference.
pub fn pod_subnets<'a>(view: &View<'a>, pod: &Pod) -> Result<Vec<&'a Subnet>, Problem> {
    let problem = |message: String| Problem {
        kind: Kind::Pod,
        key: format!("{}/{}", pod.namespace, pod.name).into(),
        reason: "AcquireAddressFailed",
        message,
    };
    if let Some(name) = pod.annotation("ovn", "logical_switch") {
        let subnet = view.get::<Subnet>(name).ok_or_else(|| {
            problem(format!(
                "annotation ovn.kubernetes.io/logical_switch names subnet {:?}, which does not \
                 exist or is not valid; create it or remove the annotation",
                &**name
            ))
        })?;
        return Ok(vec![subnet]);
    }
    let Some(namespace) = view.get::<Namespace>(&pod.namespace) else { return Ok(Vec::new()) };
    let subnets = namespace_subnets(view, namespace);
    if subnets.is_empty() {
        return Err(problem(format!(
            "namespace {:?} has no subnet and there is no default subnet; create one",
            &*pod.namespace
        )));
    }
    Ok(subnets)
}

/// IPPools bound to a namespace, by name.
pub fn namespace_pools(view: &View<'_>, namespace: &str) -> Vec<Text> {
    view.all::<IpPool>()
        .into_iter()
        .filter(|p| p.namespaces.iter().any(|n| &**n == namespace))
        .map(|p| p.name.clone())
        .collect()
}
