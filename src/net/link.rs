//! What a kernel network namespace holds: links, addresses, routes. Shared words of the planner
//! (`host`) and of the netlink calls (`kernel`), see rtnetlink(7).

use std::{net::IpAddr, sync::Arc};

use super::{Cidr, Family, Mac};

/// IFF_UP of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkState {
    Up,
    Down,
}

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: Arc<str>,
    /// Absent on links without an Ethernet address (`lo`, tunnels).
    pub mac: Option<Mac>,
    /// Octets.
    pub mtu: u32,
    pub state: LinkState,
    pub tx_queue_length: u32,
    /// `veth`, `openvswitch`, `tun`, ...; "" for physical links.
    pub kind: Arc<str>,
    pub alias: Option<Arc<str>>,
}

/// What of a link is to be changed; `None` leaves it alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkChange {
    pub mac: Option<Mac>,
    pub mtu: Option<u32>,
    pub tx_queue_length: Option<u32>,
    pub alias: Option<Arc<str>>,
    pub state: Option<LinkState>,
}

impl LinkChange {
    pub fn is_empty(&self) -> bool {
        *self == LinkChange::default()
    }
}

/// Duplicate address detection of an IPv6 address (RFC 4862).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dad {
    /// The kernel probes; the address is tentative for about a second.
    Detect,
    /// `nodad`: IPAM already guarantees that nobody else has the address.
    Skip,
}

/// Usability of an address as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressState {
    Ready,
    Tentative,
    /// Duplicate detection failed.
    Duplicate,
}

/// An address on a link; `cidr` keeps its host bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkAddress {
    pub link: Arc<str>,
    pub cidr: Cidr,
    pub scope: Scope,
    pub state: AddressState,
}

/// Scope of an address or route. All IPv6 routes are [`Scope::Global`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    Global,
    Site,
    Link,
    Host,
}

/// Who made a route (`/etc/iproute2/rt_protos`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteProtocol {
    Kernel,
    Boot,
    Static,
    Other(u8),
}

/// Number of the main routing table.
pub const MAIN_TABLE: u32 = 254;

/// Protocol of rules and routes that the agent makes beside the main table. None of
/// /etc/iproute2/rt_protos has this number.
pub const POLICY_PROTOCOL: u8 = 147;

/// `ip rule add from <source> lookup <table> priority <priority>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyRule {
    pub source: Cidr,
    pub priority: u32,
    pub table: u32,
}

/// A unicast route. `destination` has its host bits cleared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    pub destination: Cidr,
    pub gateway: Option<IpAddr>,
    pub link: Arc<str>,
    pub source: Option<IpAddr>,
    pub scope: Scope,
    pub protocol: RouteProtocol,
    /// 0 on IPv4 means none; on IPv6 the kernel turns 0 into 1024 (256 for its own routes).
    pub metric: u32,
    pub table: u32,
    pub on_link: bool,
}

impl Route {
    pub fn family(&self) -> Family {
        self.destination.family()
    }

    /// `<destination> dev <link>` in the main table, scope link, proto static.
    pub fn direct(destination: Cidr, link: &Arc<str>) -> Self {
        Route {
            destination: destination.network(),
            gateway: None,
            link: link.clone(),
            source: None,
            scope: Scope::Link,
            protocol: RouteProtocol::Static,
            metric: 0,
            table: MAIN_TABLE,
            on_link: false,
        }
        .normalized()
    }

    /// `<destination> via <gateway> dev <link>` in the main table, proto static.
    pub fn via(destination: Cidr, gateway: IpAddr, link: &Arc<str>) -> Self {
        let mut route = Route::direct(destination, link);
        route.gateway = Some(gateway);
        route.scope = Scope::Global;
        route
    }

    /// The form in which the kernel reports the route, so that wanted and seen ones compare.
    pub fn normalized(mut self) -> Self {
        if self.family() == Family::V6 {
            self.scope = Scope::Global;
            if self.metric == 0 {
                self.metric = if self.protocol == RouteProtocol::Kernel { 256 } else { 1024 };
            }
        }
        self.destination = self.destination.network();
        self
    }
}

/// Where a network object lives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The namespace of the node agent.
    Host,
    /// The namespace at this path (`/var/run/netns/cni-...`).
    Namespace(Arc<str>),
}

/// A veth pair whose peer is born in another namespace under its final name, still down; the host
/// end is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VethPair {
    /// End in the namespace of the caller.
    pub host: Arc<str>,
    pub peer: Arc<str>,
    pub peer_place: Place,
    pub peer_mac: Mac,
    /// Octets, of both ends; `None` leaves the kernel's 1500.
    pub mtu: Option<u32>,
    pub host_queue_length: u32,
}
