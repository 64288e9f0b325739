//! Routes and permanent neighbours.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol as Protocol,
        RouteScope, RouteType,
    },
};

use super::{
    Error, Netlink,
    link::{address_family, name_of},
    missing_is_fine,
};
use crate::net::{
    Cidr, Family, Link, MAIN_TABLE, Mac, POLICY_PROTOCOL, Route, RouteProtocol, Scope,
};

impl Netlink {
    /// Unicast routes of the main table, both families, in normal form. Multipath routes are
    /// left out: none of ours is one.
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        let links = self.links()?;
        self.routes_of(&links)
    }

    /// Routes of ours in other tables, see [`POLICY_PROTOCOL`].
    pub fn policy_routes_of(&mut self, links: &[Link]) -> Result<Vec<Route>, Error> {
        let mut routes = self.all_routes(links)?;
        let ours = RouteProtocol::Other(POLICY_PROTOCOL);
        routes.retain(|r| r.protocol == ours && r.table != MAIN_TABLE);
        Ok(routes)
    }

    /// The same, with the names of links dumped before.
    pub fn routes_of(&mut self, links: &[Link]) -> Result<Vec<Route>, Error> {
        let mut routes = self.all_routes(links)?;
        routes.retain(|r| r.table == MAIN_TABLE);
        Ok(routes)
    }

    fn all_routes(&mut self, links: &[Link]) -> Result<Vec<Route>, Error> {
        let mut routes = Vec::new();
        for family in Family::BOTH {
            let mut message = RouteMessage::default();
            message.header.address_family = address_family(family);
            let rows = self.dump("routes", RouteNetlinkMessage::GetRoute(message))?;
            routes.extend(rows.into_iter().filter_map(|row| parse_route(row, family, links)));
        }
        Ok(routes)
    }

    /// Creates the route, or replaces the one of the same destination, metric and table.
    pub fn replace_route(&mut self, route: &Route) -> Result<(), Error> {
        let message = self.route_message(route)?;
        let request = RouteNetlinkMessage::NewRoute(message);
        self.request(&describe(route), request, NLM_F_CREATE | NLM_F_REPLACE).map(|_| ())
    }

    /// Removes the route that equals this one in every field; a missing one is fine.
    pub fn remove_route(&mut self, route: &Route) -> Result<(), Error> {
        let message = match self.route_message(route) {
            Err(e) if e.is_missing() => return Ok(()),
            other => other?,
        };
        let request = RouteNetlinkMessage::DelRoute(message);
        missing_is_fine(self.request(&describe(route), request, 0).map(|_| ()))
    }

    fn route_message(&mut self, route: &Route) -> Result<RouteMessage, Error> {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = address_family(route.family());
        header.destination_prefix_length = route.destination.prefix;
        header.table = u8::try_from(route.table).unwrap_or(0);
        header.protocol = match route.protocol {
            RouteProtocol::Kernel => Protocol::Kernel,
            RouteProtocol::Boot => Protocol::Boot,
            RouteProtocol::Static => Protocol::Static,
            RouteProtocol::Other(n) => Protocol::from(n),
        };
        header.scope = match route.scope {
            Scope::Global => RouteScope::Universe,
            Scope::Site => RouteScope::Site,
            Scope::Link => RouteScope::Link,
            Scope::Host => RouteScope::Host,
        };
        header.kind = RouteType::Unicast;
        if route.on_link {
            header.flags = RouteFlags::Onlink;
        }
        let attributes = &mut message.attributes;
        if route.destination.prefix > 0 {
            attributes
                .push(RouteAttribute::Destination(route.destination.network().address.into()));
        }
        attributes.extend(route.gateway.map(|g| RouteAttribute::Gateway(g.into())));
        attributes.extend(route.source.map(|s| RouteAttribute::PrefSource(s.into())));
        if route.metric > 0 {
            attributes.push(RouteAttribute::Priority(route.metric));
        }
        attributes.push(RouteAttribute::Table(route.table));
        attributes.push(RouteAttribute::Oif(self.index(&route.link)?));
        Ok(message)
    }

    /// A permanent neighbour entry.
    pub fn replace_neighbour(&mut self, link: &str, ip: IpAddr, mac: Mac) -> Result<(), Error> {
        let mut message = NeighbourMessage::default();
        message.header.family = address_family(Family::of(ip));
        message.header.ifindex = self.index(link)?;
        message.header.state = NeighbourState::Permanent;
        message.header.kind = RouteType::Unicast;
        let destination = match ip {
            IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
            IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
        };
        message.attributes = vec![
            NeighbourAttribute::Destination(destination),
            NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
        ];
        let object = format!("neighbour {ip} of link {link}");
        let request = RouteNetlinkMessage::NewNeighbour(message);
        self.request(&object, request, NLM_F_CREATE | NLM_F_REPLACE).map(|_| ())
    }
}

fn describe(route: &Route) -> String {
    match route.gateway {
        Some(gateway) => format!("route {} via {gateway} dev {}", route.destination, route.link),
        None => format!("route {} dev {}", route.destination, route.link),
    }
}

fn address(address: RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(ip.into()),
        RouteAddress::Inet6(ip) => Some(ip.into()),
        _ => None,
    }
}

fn parse_route(row: RouteNetlinkMessage, family: Family, links: &[Link]) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = row else { return None };
    let header = message.header;
    if header.kind != RouteType::Unicast || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let (mut destination, mut gateway, mut source) = (None, None, None);
    let (mut link, mut metric, mut table) = (None, 0, u32::from(header.table));
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(a) => destination = address(a),
            RouteAttribute::Gateway(a) => gateway = address(a),
            RouteAttribute::PrefSource(a) => source = address(a),
            RouteAttribute::Oif(index) => link = name_of(links, index),
            RouteAttribute::Priority(n) => metric = n,
            RouteAttribute::Table(n) => table = n,
            _ => {}
        }
    }
    let destination = destination.unwrap_or(family.default_route().address);
    let route = Route {
        destination: Cidr::new(destination, header.destination_prefix_length)?,
        gateway,
        link: link?,
        source,
        scope: match header.scope {
            RouteScope::Site => Scope::Site,
            RouteScope::Link => Scope::Link,
            RouteScope::Host => Scope::Host,
            _ => Scope::Global,
        },
        protocol: match header.protocol {
            Protocol::Kernel => RouteProtocol::Kernel,
            Protocol::Boot => RouteProtocol::Boot,
            Protocol::Static => RouteProtocol::Static,
            other => RouteProtocol::Other(other.into()),
        },
        metric,
        table,
        on_link: header.flags.contains(RouteFlags::Onlink),
    };
    Some(route.normalized())
}
