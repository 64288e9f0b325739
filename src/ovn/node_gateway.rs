//! The way out of distributed subnets of the default VPC: every node carries its own pods.
//!
//! One group and one policy per node, whatever the number of subnets; pods put themselves into the
//! group of their node. Upstream has a group and policies per subnet and node, so 200 subnets on
//! 1,000 nodes made 200,000 groups, and every new node ran every subnet again.

use crate::{
    api::{Ip, Node, Settings},
    net::{address_set_name, field},
    ovsdb::{
        row::{RowBuilder, RowKey},
        schema::nb,
    },
    store::{Output, View},
};

use super::{
    VENDOR, keys,
    policy::{Action, Policy, priority},
};

pub fn desired(view: &View<'_>, name: &str) -> Output {
    let (Some(node), Some(settings)) = (view.get::<Node>(name), view.get::<Settings>("")) else {
        return Output::default();
    };
    let mut output = Output::default();
    let group = keys::distributed_group_name(view, name);
    output.facts.push(
        RowBuilder::new(&keys::distributed_ports(name))
            .set(nb::port_group::NAME, group.as_str())
            .map(nb::port_group::EXTERNAL_IDS, [("node", &*node.name), VENDOR])
            .contributed(nb::port_group::PORTS)
            .fact(),
    );
    let Some(ip) = view.get::<Ip>(&format!("node-{name}")) else { return output };
    let router = keys::router(&settings.cluster_router);
    for (family, hop) in ip.addresses.iter() {
        let id = format!("distributed/{}", family.digit());
        let set = address_set_name(&group, family);
        output.facts.extend(
            Policy {
                key: RowKey::new(&nb::LOGICAL_ROUTER_POLICY, "node-gateway", name, &id),
                router: &router,
                priority: priority::GATEWAY,
                matching: format!("{} == ${set}", field(family, "src")),
                action: Action::Reroute(vec![*hop]),
                external_ids: vec![
                    ("node".into(), name.to_owned()),
                    ("address-family".into(), family.digit().to_string()),
                ],
            }
            .facts(),
        );
    }
    output
}
