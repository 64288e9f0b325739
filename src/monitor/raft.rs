//! The text of `cluster/status` -> samples; pure.

use super::metrics::{
    CLUSTER_STATUS, ELECTION_TIMER, INBOUND, INBOUND_ERRORS, INBOUND_PEER, INDEX_NEXT, INDEX_START,
    LEADER_SELF, MATCH, NEXT, NOT_APPLIED, NOT_COMMITTED, OUTBOUND, OUTBOUND_ERRORS, OUTBOUND_PEER,
    PEER_MATCH, PEER_NEXT, PEERS, ROLE, STATUS, STATUS_CONTENT, TERM, VOTE_SELF,
};
use crate::telemetry::{Family, Sample};

/// A line of section Servers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Server {
    /// First four digits of its id.
    pub id: String,
    pub address: String,
    pub is_self: bool,
    pub next_index: Option<u64>,
    pub match_index: Option<u64>,
}

/// What a member of a raft cluster says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Raft {
    pub cluster_id: String,
    pub server_id: String,
    pub status: String,
    pub role: String,
    pub term: Option<u64>,
    pub leader_self: bool,
    pub vote_self: bool,
    pub election_timer: Option<u64>,
    /// First and next index.
    pub log: Option<(u64, u64)>,
    pub not_committed: Option<u64>,
    pub not_applied: Option<u64>,
    /// As written: `->8b2c`, `<-8b2c`, in brackets when not working.
    pub connections: Vec<String>,
    pub servers: Vec<Server>,
    /// The text after `Servers:`.
    pub listing: String,
}

impl Raft {
    pub fn parse(text: &str) -> Self {
        let mut raft = Raft::default();
        let (head, listing) = text.split_once("Servers:").unwrap_or((text, ""));
        raft.listing = listing.trim().to_owned();
        raft.servers = listing.lines().filter_map(parse_server).collect();
        for line in head.lines() {
            let Some((field, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match field {
                "Cluster ID" => full_id(value).clone_into(&mut raft.cluster_id),
                "Server ID" => full_id(value).clone_into(&mut raft.server_id),
                "Status" => value.clone_into(&mut raft.status),
                "Role" => value.clone_into(&mut raft.role),
                "Term" => raft.term = value.parse().ok(),
                "Leader" => raft.leader_self = value == "self",
                "Vote" => raft.vote_self = value == "self",
                "Election timer" => raft.election_timer = value.parse().ok(),
                "Log" => raft.log = parse_log(value),
                "Entries not yet committed" => raft.not_committed = value.parse().ok(),
                "Entries not yet applied" => raft.not_applied = value.parse().ok(),
                "Connections" => {
                    raft.connections = value.split_whitespace().map(str::to_owned).collect();
                }
                _ => {}
            }
        }
        raft
    }

    fn connected(&self, prefix: &str) -> usize {
        self.connections.iter().filter(|c| c.starts_with(prefix)).count()
    }

    /// 1 leads, 2 follows, 0 is neither or out of the cluster.
    pub fn health(&self) -> f64 {
        match (self.status.as_str(), self.role.as_str()) {
            ("cluster member", "leader") => 1.0,
            ("cluster member", "follower") => 2.0,
            _ => 0.0,
        }
    }
}

/// `4da8 (4da85563-...)`
fn full_id(value: &str) -> &str {
    value.split_once('(').map_or(value, |(_, full)| full.trim_end_matches(')'))
}

/// `[2, 12]`
fn parse_log(value: &str) -> Option<(u64, u64)> {
    let (start, next) = value.strip_prefix('[')?.strip_suffix(']')?.split_once(',')?;
    Some((start.trim().parse().ok()?, next.trim().parse().ok()?))
}

/// `    8b2c (8b2c at tcp:[10.0.0.2]:6643) next_index=12 match_index=11 last msg 14 ms ago`
fn parse_server(line: &str) -> Option<Server> {
    let (id, rest) = line.trim().split_once(' ')?;
    let (_, rest) = rest.split_once(" at ")?;
    let (address, rest) = rest.split_once(')')?;
    let index =
        |key: &str| rest.split_whitespace().find_map(|word| word.strip_prefix(key)?.parse().ok());
    Some(Server {
        id: id.to_owned(),
        address: address.to_owned(),
        is_self: rest.trim_start().starts_with("(self)"),
        next_index: index("next_index="),
        match_index: index("match_index="),
    })
}

/// Samples of one database. `component` is its server's name.
pub fn samples(host: &str, database: &str, component: &str, raft: &Raft) -> Vec<Sample> {
    let member = [host, database, &raft.server_id, &raft.cluster_id];
    let mut all = vec![
        STATUS.sample(&[host, component], raft.health()),
        STATUS_CONTENT.sample(&[host, component, &raft.listing], 1.0),
        ROLE.sample(&with(&member, &[&raft.role]), 1.0),
        CLUSTER_STATUS.sample(&with(&member, &[&raft.status]), 1.0),
    ];
    let own = raft.servers.iter().find(|s| s.is_self);
    let number = |value: Option<u64>| value.map(|v| v as f64);
    let count = |prefix: &str| Some(raft.connected(prefix) as f64);
    let values: [(&'static Family, Option<f64>); 15] = [
        (&TERM, number(raft.term)),
        (&LEADER_SELF, Some(f64::from(u8::from(raft.leader_self)))),
        (&VOTE_SELF, Some(f64::from(u8::from(raft.vote_self)))),
        (&ELECTION_TIMER, number(raft.election_timer)),
        (&NOT_COMMITTED, number(raft.not_committed)),
        (&NOT_APPLIED, number(raft.not_applied)),
        (&INDEX_START, number(raft.log.map(|l| l.0))),
        (&INDEX_NEXT, number(raft.log.map(|l| l.1))),
        (&INBOUND, count("<-")),
        (&OUTBOUND, count("->")),
        (&INBOUND_ERRORS, count("(<-")),
        (&OUTBOUND_ERRORS, count("(->")),
        (&PEERS, Some(raft.servers.iter().filter(|s| !s.is_self).count() as f64)),
        (&NEXT, number(own.and_then(|s| s.next_index))),
        (&MATCH, number(own.and_then(|s| s.match_index))),
    ];
    for (family, value) in values {
        all.extend(value.map(|value| family.sample(&member, value)));
    }
    for peer in raft.servers.iter().filter(|s| !s.is_self) {
        let id = [peer.id.as_str()];
        for (family, value) in [(&PEER_NEXT, peer.next_index), (&PEER_MATCH, peer.match_index)] {
            all.extend(number(value).map(|value| family.sample(&with(&member, &id), value)));
        }
        for (family, arrow) in [(&INBOUND_PEER, "<-"), (&OUTBOUND_PEER, "->")] {
            let connected =
                raft.connections.iter().any(|c| c.strip_prefix(arrow) == Some(&peer.id));
            let labels = with(&member, &[&peer.id, &peer.address]);
            all.push(family.sample(&labels, f64::from(u8::from(connected))));
        }
    }
    all
}

fn with<'a>(labels: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [labels, more].concat()
}
