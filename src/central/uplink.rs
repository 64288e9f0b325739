//! The NIC of the tunnels under a userspace datapath. Pure.
//!
//! A userspace datapath sends tunnel packets only through its own bridges, so the NIC becomes a
//! port of the netdev bridge `br-phy`, and the bridge's internal port takes its addresses and
//! routes over. That port is a tap device: it survives a crash of ovs-vswitchd, but no reboot and
//! no removal of the bridge. So what it carries is kept in `external_ids` of the bridge, and put
//! back after each start.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use regex::Regex;

use super::ovs_config::DatapathChoice;
use crate::net::{Cidr, Family, Link, LinkAddress, MAIN_TABLE, Route, RouteProtocol, Scope};

pub const BRIDGE: &str = "br-phy";

const UPLINK_KEY: &str = "kube-ovn-uplink";
const ADDRESSES_KEY: &str = "kube-ovn-addresses";
const ROUTES_KEY: &str = "kube-ovn-routes";
/// The keys of [`Carried::to_external_ids`].
pub const KEYS: [&str; 3] = [UPLINK_KEY, ADDRESSES_KEY, ROUTES_KEY];

/// What the bridge carries for its NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    pub uplink: Arc<str>,
    /// With host bits.
    pub addresses: Vec<Cidr>,
    pub routes: Vec<Route>,
}

/// The kernel as it is.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub links: Vec<Link>,
    pub addresses: Vec<LinkAddress>,
    pub routes: Vec<Route>,
}

/// Why no NIC is taken; the message has the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no network interface is named or matches IFACE={0:?}")]
    NoMatch(String),
    #[error("IFACE={0:?} is no regular expression: {1}")]
    Expression(String, String),
    #[error("IFACE is not set and no network interface holds POD_IP; set IFACE")]
    NoAddress,
    #[error(
        "{0} carries the node's own address or default route: taking it into {BRIDGE} would cut \
         the node off whenever ovs-vswitchd stops. Set IFACE to another interface for tunnels, or \
         force it with OVS_DATAPATH=netdev"
    )]
    NodeInterface(Arc<str>),
}

/// Chooses the NIC: by IFACE, else the one that holds the pod's address, which is taken only when
/// the userspace datapath is forced.
pub fn choose_uplink(
    iface: &str,
    pod_ips: &[IpAddr],
    choice: DatapathChoice,
    facts: &Facts,
    carried: Option<&Carried>,
) -> Result<Arc<str>, Refusal> {
    if !iface.is_empty() {
        return by_name(iface, facts);
    }
    let holds = |link: &str| {
        let own = |a: &&LinkAddress| *a.link == *link;
        let addresses = facts.addresses.iter().filter(own).map(|a| a.cidr.address);
        addresses.into_iter().any(|ip| pod_ips.contains(&ip))
    };
    let holder = facts.links.iter().find(|l| holds(&l.name)).map(|l| l.name.clone());
    let nic = match (holder, carried) {
        // The bridge holds it for a NIC that was taken before.
        (Some(holder), Some(carried)) if *holder == *BRIDGE => carried.uplink.clone(),
        (None, Some(carried)) if carried.addresses.iter().any(|a| pod_ips.contains(&a.address)) => {
            carried.uplink.clone()
        }
        (Some(holder), _) => holder,
        (None, _) => return Err(Refusal::NoAddress),
    };
    match choice {
        DatapathChoice::Netdev => Ok(nic),
        DatapathChoice::Auto | DatapathChoice::System => Err(Refusal::NodeInterface(nic)),
    }
}

/// The interface of that very name, else the first one whose whole name matches an expression.
fn by_name(iface: &str, facts: &Facts) -> Result<Arc<str>, Refusal> {
    if let Some(link) = facts.links.iter().find(|l| *l.name == *iface) {
        return Ok(link.name.clone());
    }
    let mut expressions = Vec::new();
    for part in iface.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let expression = Regex::new(&format!("^(?:{part})$"));
        expressions
            .push(expression.map_err(|e| Refusal::Expression(iface.to_owned(), e.to_string()))?);
    }
    let fits = |l: &&Link| *l.name != *BRIDGE && expressions.iter().any(|e| e.is_match(&l.name));
    let found = facts.links.iter().filter(fits).min_by_key(|l| l.index);
    found.map(|l| l.name.clone()).ok_or_else(|| Refusal::NoMatch(iface.to_owned()))
}

/// What the bridge has to carry: what NIC and bridge hold now, and what is recorded as moved. An
/// interrupted move leaves each address on at least one of them. The record goes when the NIC gets
/// everything back, so it never holds what an administrator has removed since.
pub fn carried(uplink: &Arc<str>, facts: &Facts, recorded: Option<&Carried>) -> Carried {
    let mut all = Carried { uplink: uplink.clone(), addresses: Vec::new(), routes: Vec::new() };
    for link in [BRIDGE, uplink] {
        let now = held_by(link, facts);
        merge(&mut all, now.addresses, now.routes);
    }
    if let Some(recorded) = recorded.filter(|recorded| recorded.uplink == *uplink) {
        merge(&mut all, recorded.addresses.clone(), recorded.routes.clone());
    }
    all
}

fn merge(all: &mut Carried, addresses: Vec<Cidr>, routes: Vec<Route>) {
    for address in addresses {
        if !all.addresses.contains(&address) {
            all.addresses.push(address);
        }
    }
    for route in routes {
        let same = |r: &Route| {
            (r.destination, r.metric, r.table) == (route.destination, route.metric, route.table)
        };
        if !all.routes.iter().any(same) {
            all.routes.push(route);
        }
    }
}

/// Addresses and routes of one link that have to move with it. Link-local addresses and the routes
/// that the kernel makes from addresses come by themselves.
pub fn held_by(link: &str, facts: &Facts) -> Carried {
    let local = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let addresses = facts.addresses.iter().filter(|a| *a.link == *link);
    let addresses = addresses.filter(|a| !local(a.cidr.address)).map(|a| a.cidr).collect();
    let moves = |r: &&Route| {
        *r.link == *link
            && r.table == MAIN_TABLE
            && r.protocol != RouteProtocol::Kernel
            && !(r.gateway.is_none() && local(r.destination.address))
    };
    let mut routes: Vec<Route> = facts.routes.iter().filter(moves).cloned().collect();
    // A gateway must be reachable before the route through it is accepted.
    routes.sort_by_key(|r| r.gateway.is_some());
    Carried { uplink: link.into(), addresses, routes }
}

impl Carried {
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// The same routes over another link.
    pub fn routes_over(&self, link: &str) -> Vec<Route> {
        let link: Arc<str> = link.into();
        self.routes.iter().map(|r| Route { link: link.clone(), ..r.clone() }).collect()
    }

    pub fn to_external_ids(&self) -> BTreeMap<&'static str, String> {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let routes: Vec<String> = self.routes.iter().map(render_route).collect();
        BTreeMap::from([
            (UPLINK_KEY, self.uplink.to_string()),
            (ADDRESSES_KEY, addresses.join(",")),
            (ROUTES_KEY, routes.join(";")),
        ])
    }

    /// Reads the record back; parts that are damaged are left out.
    pub fn parse(entry: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let uplink: Arc<str> = entry(UPLINK_KEY).filter(|name| !name.is_empty())?.into();
        let addresses = entry(ADDRESSES_KEY).unwrap_or_default();
        let routes = entry(ROUTES_KEY).unwrap_or_default();
        Some(Carried {
            addresses: addresses.split(',').filter_map(|a| a.parse().ok()).collect(),
            routes: routes.split(';').filter_map(|r| parse_route(r, &uplink)).collect(),
            uplink,
        })
    }
}

/// `DESTINATION [via GATEWAY] [src SOURCE] [metric N] [onlink] [scope link]`, as ip-route(8).
fn render_route(route: &Route) -> String {
    let mut text = route.destination.to_string();
    let mut add = |word: String| {
        text.push(' ');
        text.push_str(&word);
    };
    if let Some(gateway) = route.gateway {
        add(format!("via {gateway}"));
    }
    if let Some(source) = route.source {
        add(format!("src {source}"));
    }
    if route.metric != 0 {
        add(format!("metric {}", route.metric));
    }
    if route.on_link {
        add("onlink".to_owned());
    }
    if route.scope == Scope::Link {
        add("scope link".to_owned());
    }
    text
}

fn parse_route(text: &str, link: &Arc<str>) -> Option<Route> {
    let mut words = text.split_ascii_whitespace();
    let destination: Cidr = words.next()?.parse().ok()?;
    let mut route = Route::direct(destination, link);
    if destination.family() == Family::V4 {
        route.scope = Scope::Global;
    }
    while let Some(word) = words.next() {
        match word {
            "via" => route.gateway = Some(words.next()?.parse().ok()?),
            "src" => route.source = Some(words.next()?.parse().ok()?),
            "metric" => route.metric = words.next()?.parse().ok()?,
            "onlink" => route.on_link = true,
            "scope" => {
                words.next()?;
                route.scope = Scope::Link;
            }
            _ => return None,
        }
    }
    Some(route.normalized())
}

/// Chain of the rules in table `raw`.
const CHAIN: &str = "OVN-UPLINK";

/// The batch that keeps the kernel from reading the NIC beside the datapath: a packet socket only
/// copies frames, so the kernel would answer each of them a second time. `listing` is what
/// iptables-save shows.
pub fn drop_batch(nic: &str, listing: &str) -> String {
    let jump = format!("-A PREROUTING -j {CHAIN}");
    let jump = if listing.contains(&jump) { String::new() } else { format!("{jump}\n") };
    format!("*raw\n:{CHAIN} - [0:0]\n-A {CHAIN} -i {nic} -j DROP\n{jump}COMMIT\n")
}

/// The batch that removes it again; `None` when there is nothing.
pub fn undrop_batch(listing: &str) -> Option<String> {
    if !listing.lines().any(|line| line.starts_with(&format!(":{CHAIN} "))) {
        return None;
    }
    let jump = format!("-A PREROUTING -j {CHAIN}");
    let jump =
        if listing.contains(&jump) { format!("-D PREROUTING -j {CHAIN}\n") } else { String::new() };
    Some(format!("*raw\n:{CHAIN} - [0:0]\n{jump}-X {CHAIN}\nCOMMIT\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{AddressState, LinkState};

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.into(),
            mac: None,
            mtu: 1500,
            state: LinkState::Up,
            tx_queue_length: 0,
            kind: "".into(),
            alias: None,
        }
    }

    fn address(link: &str, cidr: &str) -> LinkAddress {
        let (scope, state) = (Scope::Global, AddressState::Ready);
        LinkAddress { link: link.into(), cidr: cidr.parse().unwrap(), scope, state }
    }

    fn via(link: &str, destination: &str, gateway: &str) -> Route {
        Route::via(destination.parse().unwrap(), gateway.parse().unwrap(), &link.into())
    }

    fn facts() -> Facts {
        let mut kernel = Route::direct("10.0.0.0/24".parse().unwrap(), &"eth1".into());
        kernel.protocol = RouteProtocol::Kernel;
        Facts {
            links: vec![link(2, "eth0"), link(3, "eth1"), link(9, "veth1234")],
            addresses: vec![
                address("eth0", "192.168.0.5/24"),
                address("eth1", "10.0.0.5/24"),
                address("eth1", "fe80::1/64"),
            ],
            routes: vec![
                via("eth0", "0.0.0.0/0", "192.168.0.1"),
                via("eth1", "10.9.0.0/16", "10.0.0.1"),
                kernel,
            ],
        }
    }

    fn choose(iface: &str, ip: &str, choice: DatapathChoice) -> Result<Arc<str>, Refusal> {
        choose_uplink(iface, &[ip.parse().unwrap()], choice, &facts(), None)
    }

    #[test]
    fn iface_names_whole_interfaces() {
        let auto = DatapathChoice::Auto;
        assert_eq!(&*choose("eth1", "192.168.0.5", auto).unwrap(), "eth1");
        assert_eq!(&*choose("ens.*,eth[1-9]", "192.168.0.5", auto).unwrap(), "eth1");
        assert!(matches!(choose("th1", "192.168.0.5", auto), Err(Refusal::NoMatch(_))));
        assert!(matches!(choose("e(", "192.168.0.5", auto), Err(Refusal::Expression(..))));
    }

    #[test]
    fn the_nodes_own_interface_is_taken_only_by_force() {
        let refused = choose("", "192.168.0.5", DatapathChoice::Auto).unwrap_err();
        assert!(refused.to_string().contains("OVS_DATAPATH=netdev"), "{refused}");
        assert_eq!(&*choose("", "192.168.0.5", DatapathChoice::Netdev).unwrap(), "eth0");
        assert_eq!(choose("", "1.1.1.1", DatapathChoice::Netdev), Err(Refusal::NoAddress));
    }

    #[test]
    fn after_a_restart_the_recorded_interface_is_found_again() {
        let recorded = Carried {
            uplink: "eth0".into(),
            addresses: vec!["192.168.0.5/24".parse().unwrap()],
            routes: vec![],
        };
        let mut facts = facts();
        facts.addresses.remove(0);
        let ips = ["192.168.0.5".parse().unwrap()];
        let netdev = DatapathChoice::Netdev;
        assert_eq!(&*choose_uplink("", &ips, netdev, &facts, Some(&recorded)).unwrap(), "eth0");
        facts.links.push(link(10, BRIDGE));
        facts.addresses.push(address(BRIDGE, "192.168.0.5/24"));
        assert_eq!(&*choose_uplink("", &ips, netdev, &facts, Some(&recorded)).unwrap(), "eth0");
    }

    #[test]
    fn link_local_addresses_and_kernel_routes_stay() {
        let held = held_by("eth1", &facts());
        assert_eq!(held.addresses, ["10.0.0.5/24".parse().unwrap()]);
        assert_eq!(held.routes, [via("eth1", "10.9.0.0/16", "10.0.0.1")]);
        assert_eq!(&*held.routes_over(BRIDGE)[0].link, BRIDGE);
    }

    #[test]
    fn an_interrupted_move_loses_nothing() {
        let mut facts = facts();
        facts.links.push(link(10, BRIDGE));
        facts.addresses.push(address(BRIDGE, "10.0.0.6/24"));
        let recorded = Carried {
            uplink: "eth1".into(),
            addresses: vec!["10.0.0.7/24".parse().unwrap(), "10.0.0.5/24".parse().unwrap()],
            routes: vec![via("eth1", "10.9.0.0/16", "10.0.0.1")],
        };
        let all = carried(&"eth1".into(), &facts, Some(&recorded));
        let mut addresses: Vec<String> = all.addresses.iter().map(ToString::to_string).collect();
        addresses.sort();
        assert_eq!(addresses, ["10.0.0.5/24", "10.0.0.6/24", "10.0.0.7/24"]);
        assert_eq!(all.routes.len(), 1);
    }

    #[test]
    fn the_record_reads_back() {
        let mut onlink = via("eth1", "fd01::/64", "fe80::9");
        onlink.on_link = true;
        onlink.metric = 50;
        let mut sourced = Route::direct("10.7.0.0/16".parse().unwrap(), &"eth1".into());
        sourced.source = Some("10.0.0.5".parse().unwrap());
        let all = Carried {
            uplink: "eth1".into(),
            addresses: vec!["10.0.0.5/24".parse().unwrap(), "fd00::5/64".parse().unwrap()],
            routes: vec![via("eth1", "10.9.0.0/16", "10.0.0.1"), onlink, sourced],
        };
        let ids = all.to_external_ids();
        assert_eq!(Carried::parse(|key| ids.get(key).cloned()), Some(all));
        assert_eq!(Carried::parse(|_| None), None);
    }

    #[test]
    fn drop_rules_are_written_once() {
        let first = drop_batch("eth1", "");
        assert!(first.contains("-A PREROUTING -j OVN-UPLINK"));
        let listing = "*raw\n:OVN-UPLINK - [0:0]\n-A PREROUTING -j OVN-UPLINK\nCOMMIT\n";
        assert!(!drop_batch("eth1", listing).contains("PREROUTING"));
        assert!(undrop_batch(listing).unwrap().contains("-X OVN-UPLINK"));
        assert_eq!(undrop_batch("*raw\nCOMMIT\n"), None);
    }
}
