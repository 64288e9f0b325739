//! What a node still holds of the datapath that it had before: OVS_DATAPATH was changed, or its
//! kernel has got (or lost) the openvswitch module.
//!
//! A bridge keeps its `datapath_type`, ovn-controller sets it only to a type that it is told, and
//! each datapath leaves links whose names the other one needs: internal ports are links of kind
//! `openvswitch` in the kernel datapath and tap devices of kind `tun` in userspace. So all of it is
//! put right while no vswitchd runs.

use super::{
    ovs_config::Datapath,
    uplink::BRIDGE,
    uplink_apply::{self, UplinkError},
    vswitch::{BridgeRow, Switch},
};
use crate::{
    kernel::{self, generic},
    net::{Link, Place},
};

/// The datapath of all kernel bridges, and the link that stands for it.
pub const KERNEL_DATAPATH: &str = "ovs-system";
/// The link of the userspace datapath.
const USERSPACE_DATAPATH: &str = "ovs-netdev";
/// Tunnel devices of the kernel datapath.
const TUNNELS: [&str; 2] = ["genev_sys_6081", "vxlan_sys_4789"];
const INTEGRATION_BRIDGE: &str = "br-int";

/// Brings bridges of ours to `datapath` and removes the links of the other one. Repeatable; without
/// a change nothing is written.
pub async fn leave(
    place: &Place,
    switch: &mut Switch,
    datapath: Datapath,
) -> Result<(), UplinkError> {
    let links = uplink_apply::observe(place).await?.links;
    let stale: Vec<String> = match datapath {
        Datapath::System => {
            let mut names = switch.internal_interfaces().await?;
            names.push(USERSPACE_DATAPATH.to_owned());
            give_up_uplink(place, switch).await?;
            of_kind(&links, &["tun"], &names)
        }
        Datapath::Netdev => {
            remove_kernel_datapath(place).await?;
            of_kind(&links, &["geneve", "vxlan"], &TUNNELS.map(str::to_owned))
        }
    };
    let mut bridges = switch.bridges().await?;
    let type_of = |row: &BridgeRow| match row.datapath_type.as_str() {
        "netdev" => Datapath::Netdev,
        _ => Datapath::System,
    };
    bridges.retain(|row| {
        (row.name == INTEGRATION_BRIDGE || row.is_ours()) && type_of(row) != datapath
    });
    for row in &bridges {
        tracing::warn!(bridge = row.name, ?datapath, "its datapath is changed");
    }
    switch.set_datapath_type(&bridges, datapath.name()).await?;
    if !stale.is_empty() {
        tracing::warn!(links = ?stale, "links of the former datapath are removed");
        uplink_apply::delete_links(place, stale).await;
    }
    Ok(())
}

/// Those of the links that have a name and kind of the former datapath; a NIC of the same name
/// stays.
fn of_kind(links: &[Link], kinds: &[&str], names: &[String]) -> Vec<String> {
    let stale = links.iter().filter(|link| {
        kinds.contains(&&*link.kind) && names.iter().any(|name| **name == *link.name)
    });
    stale.map(|link| link.name.to_string()).collect()
}

/// The kernel's tunnels leave by the NIC itself.
async fn give_up_uplink(place: &Place, switch: &mut Switch) -> Result<(), UplinkError> {
    let Some(bridge) = switch.bridge(BRIDGE).await? else { return Ok(()) };
    if !bridge.is_ours() {
        return Ok(());
    }
    if let Some(carried) = bridge.carried() {
        uplink_apply::give_back(place, switch, &bridge, &carried).await?;
    }
    Ok(switch.remove_bridges(&[bridge]).await?)
}

/// Whether flows of a former vswitchd may still forward in the kernel.
pub async fn has_kernel_datapath(place: &Place) -> bool {
    let facts = uplink_apply::observe(place).await;
    facts.is_ok_and(|facts| facts.links.iter().any(|link| *link.name == *KERNEL_DATAPATH))
}

/// Removes the kernel datapath with its internal ports; none is fine.
pub async fn remove_kernel_datapath(place: &Place) -> Result<(), kernel::Error> {
    // Asking for the family would load the module.
    if !has_kernel_datapath(place).await {
        return Ok(());
    }
    tracing::warn!("kernel datapath {KERNEL_DATAPATH} is removed");
    uplink_apply::aside(place, |place, _| generic::delete_datapath(place, KERNEL_DATAPATH)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::LinkState;

    #[test]
    fn only_links_of_the_former_datapath_go() {
        let link = |name: &str, kind: &str| Link {
            index: 1,
            name: name.into(),
            mac: None,
            mtu: 1500,
            state: LinkState::Up,
            tx_queue_length: 0,
            kind: kind.into(),
            alias: None,
        };
        let links = [
            link("br-int", "tun"),
            link("ovn0", "openvswitch"),
            link("tap0", "tun"),
            link("ovs-netdev", "tun"),
        ];
        let names = ["br-int", "ovn0", "ovs-netdev"].map(str::to_owned);
        assert_eq!(of_kind(&links, &["tun"], &names), ["br-int", "ovs-netdev"]);
    }
}
