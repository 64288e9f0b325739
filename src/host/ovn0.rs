//! The node's own port in the join subnet, tunnel devices, sysctls and OVS settings.

use std::collections::BTreeMap;

use super::{
    Datapath, HostState, HostView, INTEGRATION_BRIDGE, JoinPort, NetworkType, OVN0, OvsPort,
    OvsPortKind, QUEUE_LENGTH, TxChecksum, WantedLink,
};
use crate::{
    api::Text,
    net::{Cidr, DualStack, Family, LinkState},
};

/// `Open_vSwitch.external_ids` that the agent owns. Encap type, ovn-remote and hostname are
/// written by the OVS container.
pub(super) fn desired_settings(view: &HostView, state: &mut HostState) {
    let flag = |on: bool| Text::from(if on { "true" } else { "false" });
    let ids = &mut state.external_ids;
    ids.insert("ovn-is-interconn".into(), flag(view.ic_gateway));
    if let Some(encap) = &view.encap {
        ids.insert("ovn-encap-ip".into(), encap.ip.to_string().into());
        ids.insert("ovn-encap-csum".into(), flag(view.encap_checksum));
    }
    for family in view.families() {
        let wanted: &[(&str, &str)] = match family {
            Family::V4 => &[("net.ipv4.ip_forward", "1"), ("net.ipv4.conf.all.rp_filter", "0")],
            Family::V6 => &[("net.ipv6.conf.all.forwarding", "1")],
        };
        state.sysctls.extend(wanted.iter().map(|(name, value)| ((*name).into(), (*value).into())));
    }
    if let Some(link) = view.network_type.tunnel_link() {
        // OVS makes the device late and may leave it down (upstream looked once, at start: bug 18).
        let off = match view.network_type {
            NetworkType::Geneve => true,
            NetworkType::Vxlan => view.vxlan_tx_off,
            NetworkType::Stt | NetworkType::Vlan => false,
        };
        let wanted = WantedLink {
            state: Some(LinkState::Up),
            tx_checksum: off.then_some(TxChecksum::Off),
            ..WantedLink::default()
        };
        state.links.insert(link.into(), wanted);
    }
}

/// Port and link of ovn0.
pub(super) fn desired_ovn0(view: &HostView, join: &JoinPort, state: &mut HostState) {
    let ips: DualStack<_> = join.addresses.map(|c| c.address);
    let external_ids = BTreeMap::from([
        ("iface-id".into(), join.port_name.clone()),
        ("ip".into(), ips.to_string().into()),
    ]);
    state.ports.push(OvsPort {
        bridge: INTEGRATION_BRIDGE.into(),
        name: OVN0.into(),
        kind: OvsPortKind::Internal,
        mac: Some(join.mac),
        mtu_request: Some(view.overlay_mtu),
        external_ids,
    });
    let link_local = Cidr::new(join.mac.link_local().into(), 64);
    let wanted = WantedLink {
        mac: Some(join.mac),
        tx_queue_length: Some(QUEUE_LENGTH),
        state: Some(LinkState::Up),
        addresses: Some(join.addresses.iter().map(|(_, c)| *c).collect()),
        link_local: join.addresses.v6.and(link_local),
        // The tap of a userspace datapath hands over frames without their checksums.
        tx_checksum: (view.datapath == Datapath::Netdev).then_some(TxChecksum::Off),
    };
    state.links.insert(OVN0.into(), wanted);
}

/// Links whose transmit checksum offload must be observed before [`super::diff_host`].
pub fn checksum_links(state: &HostState) -> Vec<Text> {
    state.links.iter().filter(|(_, l)| l.tx_checksum.is_some()).map(|(n, _)| n.clone()).collect()
}
