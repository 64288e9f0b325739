//! The packet that is traced: how it is asked for, and how OVN and Open vSwitch spell it.

use std::net::IpAddr;

use crate::net::{Family, Mac, parse_ip};

/// Who sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    Pod { namespace: String, name: String },
    Node(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArpOperation {
    Request,
    Reply,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    Icmp,
    Tcp(u16),
    Udp(u16),
    Arp(ArpOperation),
}

/// `SENDER IP [MAC] icmp|tcp PORT|udp PORT|arp [request|reply]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub sender: Sender,
    pub target: IpAddr,
    pub mac: Option<Mac>,
    pub probe: Probe,
}

pub const USAGE: &str = "{[NAMESPACE/]POD | node//NODE} IP [MAC] {icmp | tcp PORT | udp PORT | \
                         arp [request|reply]}";

pub fn parse_request(words: &[String]) -> Result<Request, String> {
    let mut words = words.iter().map(String::as_str);
    let sender = parse_sender(words.next().unwrap_or_default())?;
    let target = words.next().ok_or("the target address is missing")?;
    let target = parse_ip(target).map_err(|e| format!("target address {target:?}: {e}"))?;
    let mut word = words.next();
    let mac = word.filter(|w| w.contains(':')).map(|w| {
        w.parse::<Mac>().map_err(|_| format!("target MAC {w:?}: write it as 0a:58:00:00:00:01"))
    });
    let mac = mac.transpose()?;
    if mac.is_some() {
        word = words.next();
    }
    let protocol = word.ok_or("the protocol is missing: icmp, tcp, udp or arp")?;
    let port = |word: Option<&str>| {
        let word = word.ok_or(format!("{protocol} needs a target port"))?;
        let port = word.parse::<u16>().ok().filter(|port| *port > 0);
        port.ok_or(format!("port {word:?}: write a number from 1 to 65535"))
    };
    let probe = match protocol {
        "icmp" => Probe::Icmp,
        "tcp" => Probe::Tcp(port(words.next())?),
        "udp" => Probe::Udp(port(words.next())?),
        "arp" if target.is_ipv6() => {
            return Err("arp is of IPv4; for IPv6 trace icmp".to_owned());
        }
        "arp" => match words.next() {
            None | Some("request") => Probe::Arp(ArpOperation::Request),
            Some("reply") if mac.is_none() => {
                return Err("an arp reply needs the target MAC".to_owned());
            }
            Some("reply") => Probe::Arp(ArpOperation::Reply),
            Some(other) => return Err(format!("arp {other:?}: write request or reply")),
        },
        other => return Err(format!("protocol {other:?}: write icmp, tcp, udp or arp")),
    };
    match words.next() {
        Some(extra) => Err(format!("unexpected {extra:?}")),
        None => Ok(Request { sender, target, mac, probe }),
    }
}

/// `[NAMESPACE/]POD` or `node//NODE`
pub fn parse_sender(word: &str) -> Result<Sender, String> {
    if let Some(node) = word.strip_prefix("node//") {
        return match node {
            "" => Err("write the name of the node: node//NODE".to_owned()),
            node => Ok(Sender::Node(node.to_owned())),
        };
    }
    let (namespace, name) = word.split_once('/').unwrap_or(("default", word));
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        return Err(format!("sender {word:?}: write [NAMESPACE/]POD or node//NODE"));
    }
    Ok(Sender::Pod { namespace: namespace.to_owned(), name: name.to_owned() })
}

/// A packet with all that identifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Logical port of the sender.
    pub port: String,
    pub source_mac: Mac,
    pub source: IpAddr,
    pub target_mac: Mac,
    pub target: IpAddr,
    pub probe: Probe,
}

/// Both stages send the same packet (upstream: ttl 255 in one, 64 in the other).
const TTL: u8 = 64;
const SOURCE_PORT: u16 = 30000;
pub const BROADCAST: Mac = Mac([0xff; 6]);

impl Flow {
    fn family(&self) -> Family {
        Family::of(self.target)
    }

    /// The microflow of ovn-trace(8).
    pub fn microflow(&self) -> String {
        let Flow { port, source_mac, source, target_mac, target, .. } = self;
        let ethernet = format!(r#"inport == "{port}" && eth.src == {source_mac}"#);
        let ip = match self.family() {
            Family::V4 => "ip4",
            Family::V6 => "ip6",
        };
        let head = format!(
            "{ethernet} && eth.dst == {target_mac} && {ip}.src == {source} && {ip}.dst == {target} \
             && ip.ttl == {TTL}"
        );
        let ports =
            |l4: &str, port: u16| format!("{l4}.src == {SOURCE_PORT} && {l4}.dst == {port}");
        match self.probe {
            Probe::Icmp if self.family() == Family::V6 => format!("{head} && icmp6.type == 128"),
            Probe::Icmp => format!("{head} && icmp4.type == 8"),
            // A SYN.
            Probe::Tcp(port) => format!("{head} && {} && tcp.flags == 2", ports("tcp", port)),
            Probe::Udp(port) => format!("{head} && {}", ports("udp", port)),
            Probe::Arp(operation) => {
                let (op, tha) = self.arp(operation);
                format!(
                    "{ethernet} && eth.dst == {target_mac} && arp.op == {op} && arp.sha == \
                     {source_mac} && arp.tha == {tha} && arp.spa == {source} && arp.tpa == {target}"
                )
            }
        }
    }

    fn arp(&self, operation: ArpOperation) -> (u8, Mac) {
        match operation {
            ArpOperation::Request => (1, Mac([0; 6])),
            ArpOperation::Reply => (2, self.target_mac),
        }
    }

    /// The flow of `ofproto/trace` (ovs-fields(7)).
    pub fn openflow(&self, in_port: i64) -> String {
        let Flow { source_mac, source, target_mac, target, .. } = self;
        let ethernet = format!("in_port={in_port},dl_src={source_mac},dl_dst={target_mac}");
        let (suffix, addresses) = match self.family() {
            Family::V4 => ("", format!("nw_src={source},nw_dst={target}")),
            Family::V6 => ("6", format!("ipv6_src={source},ipv6_dst={target}")),
        };
        let ip = |l4: &str, rest: &str| {
            format!("{l4}{suffix},{ethernet},{addresses},nw_ttl={TTL}{rest}")
        };
        match self.probe {
            Probe::Icmp if self.family() == Family::V6 => ip("icmp", ",icmp_type=128"),
            Probe::Icmp => ip("icmp", ",icmp_type=8"),
            Probe::Tcp(port) => {
                ip("tcp", &format!(",tcp_src={SOURCE_PORT},tcp_dst={port},tcp_flags=0x002"))
            }
            // The older `tp_src` means TCP only, whatever ovs-fields(7) promises.
            Probe::Udp(port) => ip("udp", &format!(",udp_src={SOURCE_PORT},udp_dst={port}")),
            Probe::Arp(operation) => {
                let (op, tha) = self.arp(operation);
                format!(
                    "arp,{ethernet},arp_op={op},arp_sha={source_mac},arp_tha={tha},\
                     arp_spa={source},arp_tpa={target}"
                )
            }
        }
    }

    /// ARP is not tracked.
    pub fn is_tracked(&self) -> bool {
        !matches!(self.probe, Probe::Arp(_))
    }
}

/// The MAC of a port whose `addresses` hold `ip`: `MAC IP...` with any of the IPs.
pub fn mac_with<'a>(addresses: impl IntoIterator<Item = &'a str>, ip: IpAddr) -> Option<Mac> {
    addresses.into_iter().find_map(|entry| {
        let mut words = entry.split_whitespace();
        let mac = words.next()?.parse().ok()?;
        words.any(|word| parse_ip(word) == Ok(ip)).then_some(mac)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::DualStack;

    fn request(line: &str) -> Result<Request, String> {
        parse_request(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    fn flow(source: &str, target: &str, probe: Probe) -> Flow {
        Flow {
            port: "a.default".into(),
            source_mac: "0a:00:00:00:00:01".parse().expect("mac"),
            source: source.parse().expect("ip"),
            target_mac: "0a:00:00:00:00:02".parse().expect("mac"),
            target: target.parse().expect("ip"),
            probe,
        }
    }

    #[test]
    fn every_form_is_understood() {
        let pod = |ns: &str| Sender::Pod { namespace: ns.into(), name: "a".into() };
        for (line, sender, probe) in [
            ("a 8.8.8.8 icmp", pod("default"), Probe::Icmp),
            ("x/a fd00::1 icmp", pod("x"), Probe::Icmp),
            ("x/a 8.8.8.8 tcp 80", pod("x"), Probe::Tcp(80)),
            ("x/a 8.8.8.8 0a:00:00:00:00:01 udp 53", pod("x"), Probe::Udp(53)),
            ("node//n1 8.8.8.8 arp", Sender::Node("n1".into()), Probe::Arp(ArpOperation::Request)),
            (
                "node//n1 8.8.8.8 0A:00:00:00:00:01 arp reply",
                Sender::Node("n1".into()),
                Probe::Arp(ArpOperation::Reply),
            ),
        ] {
            let found = request(line).unwrap_or_else(|e| panic!("{line}: {e}"));
            assert_eq!((found.sender, found.probe), (sender, probe), "{line}");
        }
    }

    /// Upstream made an invalid expression of tcp and udp without a port.
    #[test]
    fn wrong_forms_say_what_is_missing() {
        for (line, reason) in [
            ("a", "the target address is missing"),
            ("a 8.8.8", "target address"),
            ("a 8.8.8.8", "the protocol is missing"),
            ("a 8.8.8.8 tcp", "tcp needs a target port"),
            ("a 8.8.8.8 udp 0", "port \"0\""),
            ("a 8.8.8.8 sctp", "protocol \"sctp\""),
            ("a fd00::1 arp", "arp is of IPv4"),
            ("a 8.8.8.8 arp reply", "an arp reply needs the target MAC"),
            ("a 8.8.8.8 arp maybe", "arp \"maybe\""),
            ("a 8.8.8.8 icmp more", "unexpected \"more\""),
            ("node// 8.8.8.8 icmp", "write the name of the node"),
            ("a/b/c 8.8.8.8 icmp", "sender \"a/b/c\""),
        ] {
            let error = request(line).expect_err(line);
            assert!(error.contains(reason), "{line}: {error}");
        }
    }

    #[test]
    fn microflows_and_openflow_are_one_packet() {
        let tcp = flow("10.16.0.2", "10.16.0.3", Probe::Tcp(80));
        assert_eq!(
            tcp.microflow(),
            "inport == \"a.default\" && eth.src == 0a:00:00:00:00:01 && eth.dst == \
             0a:00:00:00:00:02 && ip4.src == 10.16.0.2 && ip4.dst == 10.16.0.3 && ip.ttl == 64 && \
             tcp.src == 30000 && tcp.dst == 80 && tcp.flags == 2"
        );
        assert_eq!(
            tcp.openflow(7),
            "tcp,in_port=7,dl_src=0a:00:00:00:00:01,dl_dst=0a:00:00:00:00:02,nw_src=10.16.0.2,\
             nw_dst=10.16.0.3,nw_ttl=64,tcp_src=30000,tcp_dst=80,tcp_flags=0x002"
        );
        let icmp6 = flow("fd00::2", "fd00::3", Probe::Icmp);
        assert!(icmp6.microflow().ends_with("ip.ttl == 64 && icmp6.type == 128"));
        assert!(icmp6.openflow(1).starts_with("icmp6,in_port=1,"));
        let arp = flow("10.16.0.2", "10.16.0.3", Probe::Arp(ArpOperation::Request));
        assert!(arp.microflow().contains("arp.tha == 00:00:00:00:00:00"));
        assert!(!arp.is_tracked());
    }

    /// Upstream compared text: upper-case IPv6, an address that is not the last one, and prefixes
    /// that end within a byte were missed.
    #[test]
    fn addresses_are_compared_as_addresses() {
        let ports = ["0a:00:00:00:00:05 10.16.0.5 FD00:10:16::5", "router", "unknown"];
        let mac = "0a:00:00:00:00:05".parse().ok();
        assert_eq!(mac_with(ports, "10.16.0.5".parse().expect("ip")), mac);
        assert_eq!(mac_with(ports, "fd00:10:16::5".parse().expect("ip")), mac);
        assert_eq!(mac_with(ports, "10.16.0.50".parse().expect("ip")), None);
        let cidrs = DualStack::parse_cidrs("10.16.3.1/22,FD00::8:0/109").expect("cidrs");
        assert!(cidrs.contains("10.16.2.9".parse().expect("ip")));
        assert!(cidrs.contains("fd00::f:ffff".parse().expect("ip")));
        assert!(!cidrs.contains("fd00::10:0".parse().expect("ip")));
    }
}
