//! Rules between a Subnet and other objects. A finding concerns the given subnet only: of two
//! subnets that exclude each other the older one works on (upstream reported the conflict and
//! built both).

use crate::api::{Invalid, Node, Settings, Subnet, Vpc};

use super::findings::{Findings, reason};

/// Whether `a` was there before `b`; names break ties, so that exactly one of two loses.
pub fn precedes(a: &Subnet, b: &Subnet) -> bool {
    (a.created, &a.name) < (b.created, &b.name)
}

/// Conflicts with older subnets: overlapping ranges in one VPC and VLAN (or one IPAM-only
/// provider), and shared routing tables.
pub fn conflicts<'a>(
    subnet: &Subnet,
    others: impl IntoIterator<Item = &'a Subnet>,
) -> Vec<Invalid> {
    let mut found = Findings::new(reason::SUBNET);
    let older = others.into_iter().filter(|o| o.name != subnet.name && precedes(o, subnet));
    for other in older {
        if share_ground(subnet, other) && subnet.cidrs.overlaps(&other.cidrs) {
            let remedy = format!(
                "overlaps {} of subnet {:?}; choose a free range",
                other.cidrs, &*other.name
            );
            found.refuse("spec.cidrBlock", subnet.cidrs, remedy);
        }
        if let (Some(own), Some(theirs)) = (&subnet.policy_routing, &other.policy_routing)
            && own.table == theirs.table
        {
            let remedy = format!("is the table of subnet {:?}; choose a free one", &*other.name);
            found.refuse("spec.policyRoutingTableID", own.table, remedy);
        }
    }
    found.into_list()
}

/// Whether an address of one subnet could be reached from the other.
fn share_ground(a: &Subnet, b: &Subnet) -> bool {
    if a.is_ovn() && b.is_ovn() {
        a.vpc == b.vpc && a.vlan == b.vlan
    } else {
        a.provider == b.provider
    }
}

/// The VPC must exist; a custom VPC's subnet may only name its namespaces, and one of the default
/// VPC none that belong to a custom VPC.
pub fn vpc_conflicts<'a>(
    subnet: &Subnet,
    settings: &Settings,
    vpcs: impl IntoIterator<Item = &'a Vpc>,
) -> Vec<Invalid> {
    let mut found = Findings::new(reason::SUBNET);
    if subnet.vpc.is_empty() {
        return Vec::new();
    }
    let default = subnet.vpc == settings.cluster_router;
    let mut exists = false;
    for vpc in vpcs {
        let own = vpc.name == subnet.vpc;
        exists |= own;
        for namespace in &subnet.namespaces {
            let bound = vpc.namespaces.contains(namespace);
            if own && !default && !bound {
                let remedy = format!("is no namespace of Vpc {:?}; add it there", &*vpc.name);
                found.refuse("spec.namespaces", namespace, remedy);
            } else if !own && default && bound {
                let remedy = format!("belongs to Vpc {:?}; remove it from one", &*vpc.name);
                found.refuse("spec.namespaces", namespace, remedy);
            }
        }
    }
    if !exists {
        found.refuse("spec.vpc", &subnet.vpc, "does not exist; create the Vpc or correct the name");
    }
    found.into_list()
}

/// An overlay subnet of the default VPC must not hold a node's InternalIP: the node would be out
/// of reach for the subnet's pods.
pub fn node_conflicts<'a>(
    subnet: &Subnet,
    settings: &Settings,
    nodes: impl IntoIterator<Item = &'a Node>,
) -> Vec<Invalid> {
    let mut found = Findings::new(reason::SUBNET);
    if subnet.vpc != settings.cluster_router || !subnet.is_ovn() || subnet.vlan.is_some() {
        return Vec::new();
    }
    for node in nodes {
        for (_, ip) in node.internal_ips.iter().filter(|(_, ip)| subnet.cidrs.contains(**ip)) {
            let remedy =
                format!("holds InternalIP {ip} of node {:?}; choose another range", &*node.name);
            found.refuse("spec.cidrBlock", subnet.cidrs, remedy);
        }
    }
    found.into_list()
}
