//! Wanted state of a node, and the operations that lead to it.

use std::collections::{BTreeMap, BTreeSet};

use super::{EgressRouting, ExternalBridge, Firewall, OvsMirror, PortShaping, TxChecksum};
use crate::{
    api::Text,
    net::{Cidr, Dad, Family, LinkChange, LinkState, Mac, Place, PolicyRule, Route, VethPair},
};

/// The integration bridge.
pub const INTEGRATION_BRIDGE: &str = "br-int";
/// The node's own port in the join subnet.
pub const OVN0: &str = "ovn0";
/// Upstream's transmit queue length of ovn0 and of veth host ends.
pub const QUEUE_LENGTH: u32 = 1000;

/// All that the agent wants of its node; pod NICs are planned one by one, see
/// [`plan_attach`](super::plan_attach).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostState {
    /// Entries of `Open_vSwitch.external_ids`; other keys are not ours.
    pub external_ids: BTreeMap<Text, Text>,
    /// Ports that must exist; others are not looked at.
    pub ports: Vec<OvsPort>,
    pub links: BTreeMap<Text, WantedLink>,
    /// Complete list of the routes over ovn0, apart from on-link ones of the kernel. `None` until
    /// the node has its join port.
    pub routes: Option<Vec<Route>>,
    pub sysctls: BTreeMap<Text, Text>,
    /// Limits by port of the integration bridge; other ports are not looked at.
    pub shaping: BTreeMap<Text, PortShaping>,
    pub mirror: Option<OvsMirror>,
    pub external_bridge: Option<ExternalBridge>,
    /// Policy routing; `None` until the node has its join port.
    pub egress: Option<EgressRouting>,
    /// `None` until the node has its join port: a restart must not open the firewall.
    pub firewall: Option<Firewall>,
}

/// A link that OVS makes; it is configured as soon as it is seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WantedLink {
    pub mac: Option<Mac>,
    pub tx_queue_length: Option<u32>,
    pub state: Option<LinkState>,
    /// `Some` = exactly these, beside link-local ones.
    pub addresses: Option<BTreeSet<Cidr>>,
    /// Added when the link has no link-local IPv6 address.
    pub link_local: Option<Cidr>,
    pub tx_checksum: Option<TxChecksum>,
}

/// `Interface.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OvsPortKind {
    /// An existing kernel link.
    System,
    /// Made by OVS itself.
    Internal,
}

/// A port with its one interface of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OvsPort {
    pub bridge: Text,
    pub name: Text,
    pub kind: OvsPortKind,
    /// `Interface.mac`; only internal ports take one.
    pub mac: Option<Mac>,
    pub mtu_request: Option<u32>,
    /// `Interface.external_ids`; keys not named are left alone.
    pub external_ids: BTreeMap<Text, Text>,
}

/// One effect on the node. Executors apply them in order and stop at the first failure; writes to
/// OVS may be pipelined (kernel operations that follow never wait for vswitchd).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostOp {
    /// Sets (`Some`) or deletes (`None`) keys of `Open_vSwitch.external_ids`.
    SetExternalIds(BTreeMap<Text, Option<Text>>),
    /// Inserts the port or sets the columns that it names.
    SetOvsPort(OvsPort),
    /// Sets or deletes keys of `Interface.external_ids`.
    SetInterfaceIds {
        interface: Text,
        ids: BTreeMap<Text, Option<Text>>,
    },
    RemoveOvsPort {
        bridge: Text,
        port: Text,
    },
    /// A missing port is fine.
    SetShaping {
        port: Text,
        shaping: PortShaping,
    },
    /// Waits until the kernel's root queueing discipline of a link is not netem, for a few
    /// seconds. A missing link is fine.
    AwaitNoNetem(Text),
    /// Deletes queueing rows of ours that nothing refers to.
    SweepQueues,
    SetMirror(OvsMirror),
    /// An existing one is fine.
    SetBridge(ExternalBridge),
    /// With all its ports; a missing one is fine.
    RemoveBridge(Text),
    CreateVeth(VethPair),
    SetLink {
        place: Place,
        link: Text,
        change: LinkChange,
    },
    /// A missing link is fine.
    DeleteLink {
        place: Place,
        link: Text,
    },
    /// `ethtool -K <link> tx off`.
    TxChecksumOff {
        place: Place,
        link: Text,
    },
    AddAddress {
        place: Place,
        link: Text,
        cidr: Cidr,
        dad: Dad,
    },
    /// A missing address is fine.
    RemoveAddress {
        place: Place,
        link: Text,
        cidr: Cidr,
    },
    /// Creates the route or replaces the one with the same destination, metric and table.
    ReplaceRoute {
        place: Place,
        route: Route,
    },
    /// Matches every field, not the destination alone (upstream bug 22). A missing one is fine.
    RemoveRoute {
        place: Place,
        route: Route,
    },
    /// An existing one is fine.
    AddRule(PolicyRule),
    /// A missing one is fine.
    RemoveRule(PolicyRule),
    WriteSysctl {
        name: Text,
        value: Text,
    },
    /// Standard input of `ipset restore`.
    RestoreIpsets(String),
    /// Standard input of `iptables-restore --noflush` or `ip6tables-restore --noflush`.
    RestoreIptables {
        family: Family,
        batch: String,
    },
    /// Tells the neighbours where an address lives: gratuitous ARP, unsolicited ND.
    Announce {
        place: Place,
        link: Text,
        mac: Mac,
        address: std::net::IpAddr,
    },
}
