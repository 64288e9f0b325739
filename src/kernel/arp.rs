//! Neighbour traffic on one link: announcements, resolution (which is also the gateway check and
//! the conflict probe), echo. RFC 826, RFC 4861, RFC 5227, RFC 4443.

use std::{
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Error, Netlink, netns};
use crate::net::{Mac, Place};

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const BROADCAST: Mac = Mac([0xff; 6]);
const ICMP_ECHO_REQUEST: [u8; 2] = [8, 0];
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Override: the sender replaces what neighbours have cached.
const NA_OVERRIDE: u8 = 0x20;

/// Who asks for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub link: Arc<str>,
    pub mac: Mac,
    /// `None` asks without claiming an address (conflict probe).
    pub source: Option<IpAddr>,
    pub target: IpAddr,
}

/// Tells all neighbours of `link` that `address` lives at `mac`: a gratuitous ARP request, or an
/// unsolicited neighbour advertisement.
pub fn announce(place: &Place, link: &str, mac: Mac, address: IpAddr) -> Result<(), Error> {
    let frame = match address {
        IpAddr::V4(ip) => arp_request(mac, ip, ip),
        IpAddr::V6(ip) => advertisement(mac, ip),
    };
    let socket = open(place, link, address)?;
    socket.send(&frame).map_err(|e| Error::call(format!("announcing {address} on {link}"), e))?;
    Ok(())
}

/// One ARP request or neighbour solicitation; the MAC of the first that answers for the target,
/// or `None` after `timeout`. Blocks meanwhile.
pub fn resolve(place: &Place, query: &Query, timeout: Duration) -> Result<Option<Mac>, Error> {
    let failed = |e| Error::call(format!("asking {} for {}", query.link, query.target), e);
    let frame = match (query.source, query.target) {
        (Some(IpAddr::V4(source)), IpAddr::V4(target)) => arp_request(query.mac, source, target),
        (_, IpAddr::V4(target)) => arp_request(query.mac, Ipv4Addr::UNSPECIFIED, target),
        (Some(IpAddr::V6(source)), IpAddr::V6(target)) => solicitation(query.mac, source, target),
        (_, IpAddr::V6(target)) => solicitation(query.mac, Ipv6Addr::UNSPECIFIED, target),
    };
    let socket = open(place, &query.link, query.target)?;
    socket.send(&frame).map_err(failed)?;
    await_packet(&socket, timeout, |packet| answer(packet, query)).map_err(failed)
}

/// One ICMP echo; the round trip time, or `None` after `timeout`. Blocks meanwhile.
pub fn echo(place: &Place, target: IpAddr, timeout: Duration) -> Result<Option<Duration>, Error> {
    let failed = |e| Error::call(format!("echo to {target}"), e);
    let (domain, protocol) = match target {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    // A raw socket hears the replies to all programs; the kernel's pid and a counter of ours tell
    // them apart.
    let token = next_token();
    let socket =
        netns::enter(place, || Socket::new(domain, Type::RAW, Some(protocol)))?.map_err(failed)?;
    socket.connect(&SocketAddr::new(target, 0).into()).map_err(failed)?;
    let request = echo_request(target, token);
    let start = Instant::now();
    socket.send(&request).map_err(failed)?;
    await_packet(&socket, timeout, |packet| {
        is_echo_reply(packet, target, &request[4..]).then(|| start.elapsed())
    })
    .map_err(failed)
}

fn next_token() -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let count = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    (std::process::id() << 16) | (count & 0xffff)
}

fn open(place: &Place, link: &str, address: IpAddr) -> Result<Socket, Error> {
    let index = Netlink::open(place)?.index(link)?;
    let ethertype = if address.is_ipv4() { ETHERTYPE_ARP } else { ETHERTYPE_IPV6 };
    netns::enter(place, || netns::packet_socket(index, ethertype))?
        .map_err(|e| Error::call(format!("packet socket on link {link}"), e))
}

fn await_packet<R>(
    socket: &Socket,
    timeout: Duration,
    mut wanted: impl FnMut(&[u8]) -> Option<R>,
) -> io::Result<Option<R>> {
    let deadline = Instant::now() + timeout;
    let mut buffer = [0; 2048];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        let mut reader = socket;
        match reader.read(&mut buffer) {
            Ok(length) => {
                if let Some(found) = buffer.get(..length).and_then(&mut wanted) {
                    return Ok(Some(found));
                }
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn ethernet(to: Mac, from: Mac, ethertype: u16) -> Vec<u8> {
    [to.0.as_slice(), from.0.as_slice(), ethertype.to_be_bytes().as_slice()].concat()
}

fn arp_request(mac: Mac, source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, ETHERTYPE_ARP);
    // Ethernet, IPv4, lengths 6 and 4, request.
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac.0);
    frame.extend(source.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

fn solicitation(mac: Mac, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let t = target.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, t[13], t[14], t[15]]);
    let mut body = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    body.extend(t);
    // The source link-layer option is forbidden when the source is unspecified.
    if !source.is_unspecified() {
        body.extend([1, 1]);
        body.extend(mac.0);
    }
    let mut frame = ethernet(Mac([0x33, 0x33, 0xff, t[13], t[14], t[15]]), mac, ETHERTYPE_IPV6);
    frame.extend(icmpv6_packet(source, group, body));
    frame
}

fn advertisement(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut body = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, NA_OVERRIDE, 0, 0, 0];
    body.extend(address.octets());
    body.extend([2, 1]);
    body.extend(mac.0);
    let mut frame = ethernet(Mac([0x33, 0x33, 0, 0, 0, 1]), mac, ETHERTYPE_IPV6);
    frame.extend(icmpv6_packet(address, ALL_NODES, body));
    frame
}

/// IPv6 header and body with its checksum; hop limit 255 as ND demands.
fn icmpv6_packet(source: Ipv6Addr, destination: Ipv6Addr, mut body: Vec<u8>) -> Vec<u8> {
    const ICMPV6: u8 = 58;
    let length = body.len() as u16;
    let pseudo = [
        source.octets().as_slice(),
        destination.octets().as_slice(),
        u32::from(length).to_be_bytes().as_slice(),
        [0, 0, 0, ICMPV6].as_slice(),
        body.as_slice(),
    ]
    .concat();
    body[2..4].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([ICMPV6, 255]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(body);
    packet
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|c| u32::from(u16::from_be_bytes([c[0], c.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The MAC in a frame that answers `query`; our own frames do not.
fn answer(frame: &[u8], query: &Query) -> Option<Mac> {
    let mac = match query.target {
        IpAddr::V4(target) => {
            // A reply, or any ARP that claims the address.
            let arp = frame.get(14..42)?;
            (arp[14..18] == target.octets()).then(|| mac_at(arp, 8))??
        }
        IpAddr::V6(target) => {
            let packet = frame.get(14..)?;
            let body = packet.get(40..64)?;
            let advertised = packet[6] == 58
                && body[0] == NEIGHBOUR_ADVERTISEMENT
                && body[8..24] == target.octets();
            // Target link-layer option, else the sender of the frame.
            let option = packet.get(64..72).filter(|o| o[0] == 2).and_then(|o| mac_at(o, 2));
            advertised.then(|| option.or_else(|| mac_at(frame, 6)))??
        }
    };
    (mac != query.mac).then_some(mac)
}

fn mac_at(bytes: &[u8], at: usize) -> Option<Mac> {
    bytes.get(at..at + 6)?.try_into().ok().map(Mac)
}

fn echo_request(target: IpAddr, token: u32) -> Vec<u8> {
    let head = if target.is_ipv4() { ICMP_ECHO_REQUEST } else { [128, 0] };
    let mut request = [head.as_slice(), &[0, 0], &token.to_be_bytes(), b"kube-ovn"].concat();
    // The kernel fills in the checksum of ICMPv6.
    if target.is_ipv4() {
        let sum = checksum(&request).to_be_bytes();
        request[2..4].copy_from_slice(&sum);
    }
    request
}

fn is_echo_reply(packet: &[u8], target: IpAddr, rest: &[u8]) -> bool {
    let (kind, body) = match target {
        // Raw IPv4 sockets deliver the IP header too.
        IpAddr::V4(_) => {
            let header = packet.first().map_or(0, |b| usize::from(b & 0x0f) * 4);
            (0, packet.get(header..))
        }
        IpAddr::V6(_) => (129, Some(packet)),
    };
    body.is_some_and(|b| b.first() == Some(&kind) && b.get(4..) == Some(rest))
}
