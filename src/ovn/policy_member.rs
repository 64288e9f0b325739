//! A pod puts itself into the groups and address sets of the policies that select it, so that its
//! events cost what concerns it and never the size of the groups.

use crate::{
    api::{
        AdminNetworkPolicy, Administrative, BaselineAdminNetworkPolicy, NetworkPolicy, Settings,
    },
    ovsdb::row::Fact,
    store::{Output, View},
};

use super::{
    keys,
    members::{Given, Member, member},
};

pub fn desired(view: &View<'_>, key: &str) -> Output {
    let Some(settings) = view.get::<Settings>("") else { return Output::default() };
    let Some(pod) = Member::read(view, key) else { return Output::default() };
    let mut facts = Vec::new();
    if settings.enable_np {
        let given = pod.contributions::<NetworkPolicy>(view, "network-policy");
        if given.iter().any(|g| matches!(g, Given::Port(..))) {
            facts.extend(pod.ports().map(|port| member(keys::policy_pods(), port)));
            facts.extend(own_node(view, &pod, settings));
        }
        facts.extend(given.into_iter().map(Given::fact));
    }
    if settings.enable_anp {
        facts.extend(administered::<AdminNetworkPolicy>(view, &pod));
        facts.extend(administered::<BaselineAdminNetworkPolicy>(view, &pod));
    }
    Output { facts, ..Output::default() }
}

fn administered<'a, T: Administrative>(
    view: &View<'a>,
    pod: &Member<'a>,
) -> impl Iterator<Item = Fact> {
    pod.contributions::<T>(view, T::FEATURE).into_iter().map(Given::fact)
}

/// A pod on a VLAN joins the group of its node, for the exemption of the node; overlay pods are
/// in it anyway.
fn own_node(view: &View<'_>, pod: &Member<'_>, settings: &Settings) -> Vec<Fact> {
    let Some(node) = pod.pod.node.as_ref().filter(|n| keys::has_node(view, n)) else {
        return Vec::new();
    };
    let on_vlan = pod.networks.iter().filter(|(ip, subnet)| {
        subnet.is_ovn()
            && !subnet.is_overlay()
            && subnet.vpc == settings.cluster_router
            && ip.mac.is_some()
    });
    on_vlan.map(|(ip, _)| member(keys::node_ports(node), keys::pod_port(&ip.name))).collect()
}
