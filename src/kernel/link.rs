//! Links and their addresses.

use std::{net::IpAddr, os::fd::AsRawFd, sync::Arc};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};

use super::{Error, Netlink, missing_is_fine, netns};
use crate::net::{
    AddressState, Cidr, Dad, Family, Link, LinkAddress, LinkChange, LinkState, Mac, Place, Scope,
    VethPair,
};

impl Netlink {
    /// Every link of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let rows = self.dump("links", RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        Ok(rows.into_iter().filter_map(parse_link).collect())
    }

    /// One link by name.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let object = format!("link {name}");
        match self.request(&object, RouteNetlinkMessage::GetLink(message), 0) {
            Ok(replies) => Ok(replies.into_iter().find_map(parse_link)),
            Err(e) if e.is_missing() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Index of an existing link.
    pub(super) fn index(&mut self, name: &str) -> Result<u32, Error> {
        self.link(name)?.map(|l| l.index).ok_or_else(|| {
            Error::call(format!("link {name}"), std::io::Error::from_raw_os_error(libc::ENODEV))
        })
    }

    /// Makes the pair; the peer is born in its namespace under its final name, so nothing has to
    /// be moved or renamed. The host end is up, the peer is not: the kernel refuses to open it
    /// before it knows its other end. EEXIST when either name is taken.
    pub fn create_veth(&mut self, pair: &VethPair) -> Result<(), Error> {
        let object = format!("veth pair {} - {}", pair.host, pair.peer);
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(pair.peer.to_string()));
        peer.attributes.push(LinkAttribute::Address(pair.peer_mac.0.to_vec()));
        peer.attributes.extend(pair.mtu.map(LinkAttribute::Mtu));
        // The file must stay open until the kernel has taken the request.
        let file = match &pair.peer_place {
            Place::Host => None,
            Place::Namespace(path) => Some(netns::open(path)?),
        };
        peer.attributes.extend(file.iter().map(|f| LinkAttribute::NetNsFd(f.as_raw_fd())));
        let mut host = up(LinkMessage::default());
        host.attributes.push(LinkAttribute::IfName(pair.host.to_string()));
        host.attributes.push(LinkAttribute::TxQueueLen(pair.host_queue_length));
        host.attributes.extend(pair.mtu.map(LinkAttribute::Mtu));
        host.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.request(&object, RouteNetlinkMessage::NewLink(host), flags).map(|_| ())
    }

    /// Changes an existing link, in one request.
    pub fn set_link(&mut self, name: &str, change: &LinkChange) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        match change.state {
            Some(LinkState::Up) => message = up(message),
            Some(LinkState::Down) => message.header.change_mask = LinkFlags::Up,
            None => {}
        }
        let attributes = &mut message.attributes;
        attributes.push(LinkAttribute::IfName(name.to_owned()));
        attributes.extend(change.mac.map(|m| LinkAttribute::Address(m.0.to_vec())));
        attributes.extend(change.mtu.map(LinkAttribute::Mtu));
        attributes.extend(change.tx_queue_length.map(LinkAttribute::TxQueueLen));
        attributes.extend(change.alias.iter().map(|a| LinkAttribute::IfAlias(a.to_string())));
        let object = format!("link {name}");
        self.request(&object, RouteNetlinkMessage::SetLink(message), 0).map(|_| ())
    }

    /// Removes a link; a missing one is fine.
    pub fn delete_link(&mut self, name: &str) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let request = RouteNetlinkMessage::DelLink(message);
        missing_is_fine(self.request(&format!("link {name}"), request, 0).map(|_| ()))
    }

    /// Every address of the namespace, both families.
    pub fn addresses(&mut self) -> Result<Vec<LinkAddress>, Error> {
        let links = self.links()?;
        self.addresses_of(&links)
    }

    /// Every address, with the names of links dumped before.
    pub fn addresses_of(&mut self, links: &[Link]) -> Result<Vec<LinkAddress>, Error> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let rows = self.dump("addresses", request)?;
        Ok(rows.into_iter().filter_map(|row| parse_address(row, links)).collect())
    }

    /// Adds an address; the same one being there is fine.
    pub fn add_address(&mut self, link: &str, cidr: Cidr, dad: Dad) -> Result<(), Error> {
        let mut message = address_message(self.index(link)?, cidr);
        if cidr.family() == Family::V6 && dad == Dad::Skip {
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let object = format!("address {cidr} of link {link}");
        let request = RouteNetlinkMessage::NewAddress(message);
        self.request(&object, request, NLM_F_CREATE | NLM_F_REPLACE).map(|_| ())
    }

    /// Removes an address; a missing one is fine.
    pub fn remove_address(&mut self, link: &str, cidr: Cidr) -> Result<(), Error> {
        let index = match self.index(link) {
            Err(e) if e.is_missing() => return Ok(()),
            other => other?,
        };
        let request = RouteNetlinkMessage::DelAddress(address_message(index, cidr));
        let object = format!("address {cidr} of link {link}");
        missing_is_fine(self.request(&object, request, 0).map(|_| ()))
    }
}

fn up(mut message: LinkMessage) -> LinkMessage {
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

pub(super) fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

fn address_message(index: u32, cidr: Cidr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = address_family(cidr.family());
    message.header.prefix_len = cidr.prefix;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(cidr.address));
    message.attributes.push(AddressAttribute::Address(cidr.address));
    message
}

fn parse_link(row: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = row else { return None };
    let mut link = Link {
        index: message.header.index,
        name: "".into(),
        mac: None,
        mtu: 0,
        state: if message.header.flags.contains(LinkFlags::Up) {
            LinkState::Up
        } else {
            LinkState::Down
        },
        tx_queue_length: 0,
        kind: "".into(),
        alias: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name.into(),
            LinkAttribute::Address(bytes) => {
                link.mac = <[u8; 6]>::try_from(bytes).ok().filter(|b| *b != [0; 6]).map(Mac);
            }
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::TxQueueLen(n) => link.tx_queue_length = n,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias.into()),
            LinkAttribute::LinkInfo(info) => {
                let kind = info.into_iter().find_map(|i| match i {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
                link.kind = kind.unwrap_or_default().into();
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

pub(super) fn name_of(links: &[Link], index: u32) -> Option<Arc<str>> {
    links.iter().find(|l| l.index == index).map(|l| l.name.clone())
}

fn parse_address(row: RouteNetlinkMessage, links: &[Link]) -> Option<LinkAddress> {
    let RouteNetlinkMessage::NewAddress(message) = row else { return None };
    let header = message.header;
    let (mut local, mut remote) = (None::<IpAddr>, None::<IpAddr>);
    let mut flags = AddressFlags::from_bits_retain(u32::from(header.flags.bits()));
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(ip),
            AddressAttribute::Address(ip) => remote = Some(ip),
            AddressAttribute::Flags(f) => flags = f,
            _ => {}
        }
    }
    let state = if flags.contains(AddressFlags::Dadfailed) {
        AddressState::Duplicate
    } else if flags.contains(AddressFlags::Tentative) {
        AddressState::Tentative
    } else {
        AddressState::Ready
    };
    Some(LinkAddress {
        link: name_of(links, header.index)?,
        // On point-to-point links IFA_ADDRESS is the other end; IPv6 has no IFA_LOCAL.
        cidr: Cidr::new(local.or(remote)?, header.prefix_len)?,
        scope: match header.scope {
            AddressScope::Site => Scope::Site,
            AddressScope::Link => Scope::Link,
            AddressScope::Host => Scope::Host,
            _ => Scope::Global,
        },
        state,
    })
}
