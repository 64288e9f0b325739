//! Which subnets a namespace and a pod belong to.

use std::net::IpAddr;

use crate::{
    api::{
        Index, Ip, IpPool, Kind, Namespace, Pod, PodLife, Settings, Subnet, Text, Vpc,
        names::suffix,
        parse::{PoolWish, fixed_addresses, parse_pool_wish},
    },
    net::{DualStack, Family, Mac},
    store::{Problem, View},
};

/// Subnets of a namespace, as [`namespace_subnets`] orders them.
pub struct Choice<'a> {
    /// The default subnet of the custom VPC that binds the namespace.
    pub preferred: Option<&'a Subnet>,
    /// Subnets that list or select the namespace, or the fallback when there is none at all.
    pub members: Vec<&'a Subnet>,
}

/// Subnets that are usable for pods of a namespace.
pub fn choose<'a>(view: &View<'a>, namespace: &Namespace) -> Choice<'a> {
    let mut choice = Choice { preferred: None, members: Vec::new() };
    let Some(settings) = view.get::<Settings>("") else { return choice };
    let usable = |s: &&Subnet| !s.deleting && s.is_ovn();
    let bound = view
        .list::<Vpc>(Index::VpcsByNamespace, &namespace.name)
        .into_iter()
        .find(|v| v.name != settings.cluster_router);
    // kube-system stays where the cluster's own components are reachable.
    let vpc = bound.filter(|_| &*namespace.name != "kube-system");
    choice.preferred = vpc
        .and_then(|v| view.get::<Subnet>(v.default_subnet.as_ref()?).filter(|s| s.vpc == v.name))
        .filter(usable);
    choice.members = view.list(Index::SubnetsByNamespace, &namespace.name);
    let selecting = view.list::<Subnet>(Index::SubnetsWithSelectors, "").into_iter();
    let selected: Vec<&Subnet> = selecting
        .filter(|s| s.namespace_selectors.iter().any(|x| x.matches(&namespace.labels)))
        .filter(|s| !s.namespaces.contains(&namespace.name))
        .collect();
    choice.members.extend(selected);
    choice.members.retain(usable);
    if choice.members.is_empty() && choice.preferred.is_none() {
        let marked = |v: &Vpc| view.list::<Subnet>(Index::DefaultSubnetsByVpc, &v.name);
        let of_vpc = bound.and_then(|v| marked(v).into_iter().find(usable));
        let fallback = of_vpc.or_else(|| view.get(&settings.default_subnet).filter(usable));
        choice.members.extend(fallback);
    }
    choice
}

/// Subnets of a namespace, the preferred one first: a custom VPC's default subnet, subnets that
/// list the namespace, subnets that select it, else the default subnet of the VPC that binds the
/// namespace, else the cluster's. Order is by name within a group (upstream: random).
pub fn namespace_subnets<'a>(view: &View<'a>, namespace: &Namespace) -> Vec<&'a Subnet> {
    let Choice { preferred, members } = choose(view, namespace);
    let first = preferred.map(|s| s.name.clone());
    let others = members.into_iter().filter(|s| Some(&s.name) != first.as_ref());
    preferred.into_iter().chain(others).collect()
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
    view.keys::<IpPool>(Index::PoolsByNamespace, namespace).cloned().collect()
}

/// The virtual machine behind a pod, when its addresses belong to the machine: the pods of one
/// machine, old and new, then share one port. A pod that got the machine's addresses keeps them
/// when the flag is switched off.
pub fn virtual_machine<'a>(pod: &'a Pod, settings: &Settings) -> Option<&'a Text> {
    let machine = pod.machine()?;
    let given = pod.annotation("ovn", suffix::VIRTUALMACHINE) == Some(machine);
    (settings.keep_vm_ip || given).then_some(machine)
}

/// Recorded addresses of a pod, or of the virtual machine that runs in it. A machine and a pod of
/// the same name do not share their records. A record that the allocator has not taken over yet is
/// a wish, no address.
pub fn pod_addresses<'a>(view: &View<'a>, pod: &Pod, settings: &Settings) -> Vec<&'a Ip> {
    let machine = virtual_machine(pod, settings);
    let key = format!("{}/{}", pod.namespace, machine.unwrap_or(&pod.name));
    let of_machine = |ip: &&Ip| &*ip.pod_type == "VirtualMachine";
    view.list::<Ip>(Index::IpsByPod, &key)
        .into_iter()
        .filter(|ip| ip.managed && of_machine(ip) == machine.is_some())
        .filter(|ip| !is_outdated(view, pod, ip))
        .collect()
}

/// Whether a record that an earlier pod of the name left is not what this one asks for: the
/// template of its StatefulSet, or the pod itself, names another address, pool or MAC now. A pod
/// that was set up once keeps what it has.
pub fn is_outdated(view: &View<'_>, pod: &Pod, ip: &Ip) -> bool {
    let provider = provider_of(ip);
    let annotation = |name| pod.annotation(provider, name).filter(|text| !text.trim().is_empty());
    if ip.reserved || annotation(suffix::ALLOCATED).is_some_and(|v| &**v == "true") {
        return false;
    }
    let differs = |wished: &DualStack<IpAddr>| {
        wished.iter().any(|(family, address)| ip.addresses.get(family) != Some(address))
    };
    if let Some(mac) = annotation(suffix::MAC_ADDRESS).and_then(|text| text.parse::<Mac>().ok())
        && ip.mac.is_some_and(|own| own != mac)
    {
        return true;
    }
    if let Some(text) = annotation(suffix::IP_ADDRESS) {
        return fixed_addresses(text).is_ok_and(|wished| differs(&wished));
    }
    match annotation(suffix::IP_POOL).map(|text| parse_pool_wish(text)) {
        Some(Ok(PoolWish::Addresses(all))) => all.iter().all(differs),
        Some(Ok(PoolWish::Pool(name))) => view.get::<IpPool>(&name).is_some_and(|pool| {
            let of_pool = |(family, address): (Family, &IpAddr)| {
                let mut ranges = pool.ranges.iter().filter(|r| r.family == family).peekable();
                ranges.peek().is_none() || ranges.any(|range| range.contains(*address))
            };
            ip.subnet != pool.subnet || !ip.addresses.iter().all(of_pool)
        }),
        _ => false,
    }
}

/// Why a recorded address cannot be a pod's.
pub fn unusable(ip: &Ip, subnet: &Subnet, settings: &Settings) -> Option<String> {
    if subnet.name == settings.node_switch {
        return Some(format!(
            "subnet {:?} is for nodes; choose another in annotation logical_switch",
            &*subnet.name
        ));
    }
    let edge = ip.addresses.iter().find(|(family, address)| {
        subnet.cidrs.get(*family).is_some_and(|c| c.is_network_or_broadcast(**address))
    });
    edge.map(|(_, address)| {
        format!(
            "address {address} is the network or broadcast address of {}; choose another in \
             annotation ip_address",
            subnet.cidrs
        )
    })
}

/// Addresses of a pod that are in force, with their subnets: the ones that a port is made for (or
/// that another plugin uses, when the subnet is not OVN's).
pub fn pod_networks<'a>(
    view: &View<'a>,
    pod: &Pod,
    settings: &Settings,
) -> Vec<(&'a Ip, &'a Subnet)> {
    if pod.host_network || pod.life == PodLife::Ended || !pod.invalid.is_empty() {
        return Vec::new();
    }
    pod_addresses(view, pod, settings)
        .into_iter()
        .filter(|ip| !ip.deleting)
        .filter_map(|ip| Some((ip, view.get::<Subnet>(&ip.subnet)?)))
        .filter(|(ip, subnet)| unusable(ip, subnet, settings).is_none())
        .collect()
}

/// The provider of a recorded address: what follows `<pod>.<ns>` in its name. Pod names may hold
/// dots, so it is cut by known lengths.
pub fn provider_of(ip: &Ip) -> &str {
    let own = ip.pod_name.len() + 1 + ip.namespace.len();
    ip.name.get(own + 1..).filter(|p| !p.is_empty()).unwrap_or("ovn")
}
