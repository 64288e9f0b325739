//! Wake-ups when links, addresses or routes of the host change.

use std::io;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{RouteNetlinkMessage, link::LinkAttribute};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use tokio::io::unix::AsyncFd;

use super::{
    Error,
    netns::{enter, register},
};
use crate::net::Place;

/// What a notification is about. It says where to look, not what is true now: dump to know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    Link(String),
    Addresses,
    Routes,
    /// The kernel dropped notifications: anything may have changed.
    Lost,
}

/// Multicast groups of rtnetlink(7): link, IPv4 and IPv6 addresses and routes.
const GROUPS: [u32; 5] = [1, 5, 9, 7, 11];

/// A subscription to one namespace.
pub struct Monitor {
    socket: AsyncFd<Socket>,
}

impl Monitor {
    /// Must be called inside a tokio runtime.
    pub fn open(place: &Place) -> Result<Self, Error> {
        let failed = |e| Error::call("rtnetlink notifications", e);
        let socket = enter(place, || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            for group in GROUPS {
                socket.add_membership(group)?;
            }
            socket.set_non_blocking(true)?;
            Ok(socket)
        })?
        .map_err(failed)?;
        Ok(Monitor { socket: register(socket).map_err(failed)? })
    }

    /// Waits for the next change; all that are pending come together, without repeats.
    pub async fn changed(&mut self) -> Result<Vec<Change>, Error> {
        let failed = |e| Error::call("rtnetlink notifications", e);
        loop {
            let mut guard = self.socket.readable().await.map_err(failed)?;
            let mut changes = Vec::new();
            loop {
                let read = guard.try_io(|fd| {
                    let mut buffer = Vec::with_capacity(32 << 10);
                    fd.get_ref().recv(&mut buffer, 0).map(|_| buffer)
                });
                match read {
                    Err(_would_block) => break,
                    Ok(Ok(buffer)) => changes.extend(parse(&buffer)),
                    Ok(Err(e)) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                        changes.push(Change::Lost);
                    }
                    Ok(Err(e)) => return Err(failed(e)),
                }
            }
            changes.sort_unstable();
            changes.dedup();
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }
}

fn parse(buffer: &[u8]) -> Option<Change> {
    // One notification per datagram. An unreadable one still says that something happened.
    let Ok(packet) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(buffer) else {
        return Some(Change::Lost);
    };
    match packet.payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewLink(m) | RouteNetlinkMessage::DelLink(m),
        ) => m.attributes.into_iter().find_map(|a| match a {
            LinkAttribute::IfName(name) => Some(Change::Link(name)),
            _ => None,
        }),
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_),
        ) => Some(Change::Addresses),
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_),
        ) => Some(Change::Routes),
        _ => None,
    }
}
