//! One rtnetlink(7) socket: request, acknowledgement, dump.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::{
    Error,
    netns::{control_socket, enter},
};
use crate::net::Place;

/// The kernel answers dumps in parts of at most 32 KiB, or of the size the reader offers.
const BUFFER: usize = 64 << 10;
/// A table that changes while it is dumped is read again this often.
const DUMP_RETRIES: u32 = 5;

/// Links, addresses, routes and neighbours of one network namespace.
///
/// Blocking: a request takes 10-60 microseconds, creation of a veth pair about 0.3 ms.
pub struct Netlink {
    socket: Socket,
    /// Takes ioctls that have no netlink form; of the same namespace.
    control: socket2::Socket,
    sequence: u32,
    buffer: Vec<u8>,
    effort: Effort,
}

/// What a socket has done; asserted in tests, since it does not depend on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effort {
    /// Sockets opened, for each of which a thread enters the namespace (but for the host's).
    pub sockets: u32,
    pub requests: u32,
    /// Whole tables read.
    pub dumps: u32,
}

impl std::ops::Add for Effort {
    type Output = Effort;

    fn add(self, other: Effort) -> Effort {
        Effort {
            sockets: self.sockets + other.sockets,
            requests: self.requests + other.requests,
            dumps: self.dumps + other.dumps,
        }
    }
}

enum Part {
    Message(RouteNetlinkMessage),
    Interrupted(RouteNetlinkMessage),
    End,
}

impl Netlink {
    /// A socket of `place`; it may then be used from any thread.
    pub fn open(place: &Place) -> Result<Self, Error> {
        let (socket, control) = enter(place, || -> io::Result<_> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Error texts of the kernel, without a copy of the request.
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            Ok((socket, control_socket()?))
        })?
        .map_err(|e| Error::call("rtnetlink socket", e))?;
        let effort = Effort { sockets: 1, ..Effort::default() };
        Ok(Netlink { socket, control, sequence: 0, buffer: Vec::with_capacity(BUFFER), effort })
    }

    pub fn effort(&self) -> Effort {
        self.effort
    }

    pub(super) fn control(&self) -> &socket2::Socket {
        &self.control
    }

    /// Sends one request and waits for its acknowledgement; returns what came before it.
    pub(super) fn request(
        &mut self,
        object: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        self.effort.requests += 1;
        self.send(object, message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        let mut replies = Vec::new();
        while !self.receive(object, &mut |part| {
            if let Part::Message(m) | Part::Interrupted(m) = part {
                replies.push(m);
            }
        })? {}
        Ok(replies)
    }

    /// Reads a whole table.
    pub(super) fn dump(
        &mut self,
        object: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        for _ in 0..DUMP_RETRIES {
            self.effort.dumps += 1;
            self.send(object, message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            let (mut rows, mut whole) = (Vec::new(), true);
            while !self.receive(object, &mut |part| match part {
                Part::Message(m) => rows.push(m),
                Part::Interrupted(_) => whole = false,
                Part::End => {}
            })? {}
            if whole {
                return Ok(rows);
            }
        }
        Err(Error::call(object, io::Error::from(io::ErrorKind::Interrupted)))
    }

    fn send(
        &mut self,
        object: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(|e| Error::call(object, e))?;
        Ok(())
    }

    /// Reads one datagram; `true` when the request is answered.
    fn receive(&mut self, object: &str, take: &mut dyn FnMut(Part)) -> Result<bool, Error> {
        self.buffer.clear();
        self.socket.recv(&mut self.buffer, 0).map_err(|e| Error::call(object, e))?;
        let mut rest = self.buffer.as_slice();
        while rest.len() >= 16 {
            let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            let Some(bytes) = rest.get(..length).filter(|b| b.len() >= 16) else { break };
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            if let Some(end) = parse(object, bytes, self.sequence, take)? {
                return Ok(end);
            }
        }
        Ok(false)
    }
}

/// One message of a datagram; `Some` when it ends the request.
fn parse(
    object: &str,
    bytes: &[u8],
    sequence: u32,
    take: &mut dyn FnMut(Part),
) -> Result<Option<bool>, Error> {
    let packet = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes)
        .map_err(|e| Error::Reply { object: object.to_owned(), message: e.to_string() })?;
    // Left over from a request that failed half way.
    if packet.header.sequence_number != sequence {
        return Ok(None);
    }
    let interrupted = packet.header.flags & NLM_F_DUMP_INTR != 0;
    match packet.payload {
        NetlinkPayload::InnerMessage(m) if interrupted => take(Part::Interrupted(m)),
        NetlinkPayload::InnerMessage(m) => take(Part::Message(m)),
        NetlinkPayload::Done(_) => {
            take(Part::End);
            return Ok(Some(true));
        }
        NetlinkPayload::Error(e) if e.code.is_none() => return Ok(Some(true)),
        NetlinkPayload::Error(e) => {
            let hint = extended_text(&e.header).map_or(String::new(), |t| format!(" ({t})"));
            return Err(Error::Call { object: object.to_owned(), source: e.to_io(), hint });
        }
        _ => {}
    }
    Ok(None)
}

/// NLMSGERR_ATTR_MSG behind the copied 16-byte header of the request.
fn extended_text(payload: &[u8]) -> Option<String> {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let mut rest = payload.get(16..)?;
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        let kind = u16::from_ne_bytes([rest[2], rest[3]]);
        let value = rest.get(4..length)?;
        if kind == NLMSGERR_ATTR_MSG {
            let text = value.split(|b| *b == 0).next().unwrap_or_default();
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}
