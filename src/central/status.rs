//! What a raft server says about itself: `cluster/status` and the `_Server` database. Pure.

use serde_json::{Value, json};

use super::decide::Peer;

/// A row of `_Server.Database`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    pub clustered: bool,
    /// In contact with a majority (always, when standalone).
    pub connected: bool,
    pub leader: bool,
    pub cluster: Option<String>,
    pub server: Option<String>,
}

/// The operation that selects the row of a database.
pub fn select_database(name: &str) -> Value {
    json!({ "op": "select", "table": "Database",
            "columns": ["model", "connected", "leader", "cid", "sid"],
            "where": [["name", "==", name]] })
}

/// Parses the result of [`select_database`]; `None` when the server has no such database.
pub fn parse_database(result: &Value) -> Option<Serving> {
    let row = result["rows"].as_array()?.first()?;
    let uuid = |column: &str| Some(row[column].as_array()?.get(1)?.as_str()?.to_owned());
    Some(Serving {
        clustered: row["model"] == "clustered",
        connected: row["connected"] == true,
        leader: row["leader"] == true,
        cluster: uuid("cid"),
        server: uuid("sid"),
    })
}

impl From<Option<Serving>> for Peer {
    fn from(serving: Option<Serving>) -> Self {
        match serving {
            None => Peer::Blank,
            Some(s) if !s.clustered => Peer::Standalone,
            Some(s) => Peer::Member { cluster: s.cluster, connected: s.connected },
        }
    }
}

/// One line of the Servers section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The first digits of the server id, as `cluster/kick` takes them.
    pub id: String,
    pub address: String,
    pub is_self: bool,
}

/// The text of `cluster/status`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterStatus {
    /// `cluster member`, `joining cluster`, `left cluster`, `failed`, and whether `disconnected`.
    pub status: String,
    /// `leader`, `follower`, `candidate`.
    pub role: String,
    pub server_id: String,
    pub election_timer: Option<u64>,
    pub servers: Vec<Member>,
}

impl ClusterStatus {
    pub fn parse(text: &str) -> Self {
        let mut status = ClusterStatus::default();
        let mut in_servers = false;
        for line in text.lines() {
            if let Some(member) = line.strip_prefix("    ").filter(|_| in_servers) {
                status.servers.extend(parse_member(member));
                continue;
            }
            in_servers = line.starts_with("Servers:");
            let Some((field, value)) = line.split_once(": ") else { continue };
            match field {
                "Status" => value.clone_into(&mut status.status),
                "Role" => value.clone_into(&mut status.role),
                "Server ID" => {
                    let full = value.split_once('(').map_or(value, |(_, full)| full);
                    full.trim_end_matches(')').clone_into(&mut status.server_id);
                }
                "Election timer" => status.election_timer = value.trim().parse().ok(),
                _ => {}
            }
        }
        status
    }

    pub fn is_member(&self) -> bool {
        self.status.starts_with("cluster member")
    }

    pub fn is_leader(&self) -> bool {
        self.role == "leader"
    }

    /// The rule of upstream's probe.
    pub fn is_broken(&self) -> bool {
        self.status.contains("failed")
            || (self.status.contains("disconnected") && self.role == "candidate")
    }

    /// Servers that are leftovers of ourselves: our address with another id, or a recorded id.
    pub fn stale<'a>(&'a self, recorded: &'a [String]) -> impl Iterator<Item = &'a Member> {
        let ours = self.servers.iter().find(|m| m.is_self);
        self.servers.iter().filter(move |member| {
            let same_address = ours.is_some_and(|us| us.address == member.address);
            let was_ours = recorded.iter().any(|id| id.starts_with(&member.id));
            !member.is_self && (same_address || was_ours)
        })
    }
}

/// `4da8 (4da8 at tcp:127.0.0.1:6643) (self) next_index=3 match_index=3`
fn parse_member(line: &str) -> Option<Member> {
    let (id, rest) = line.split_once(' ')?;
    let (_, rest) = rest.split_once(" at ")?;
    let (address, rest) = rest.split_once(')')?;
    Some(Member {
        id: id.to_owned(),
        address: address.to_owned(),
        is_self: rest.trim_start().starts_with("(self)"),
    })
}

/// The next step towards the wanted election timer; a step at most doubles it.
pub fn next_election_timer(current: u64, wanted: u64) -> Option<u64> {
    (current < wanted).then(|| wanted.min(current.saturating_mul(2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "4da8\nName: OVN_Northbound\nCluster ID: fc5b (fc5bcf37)\n\
Server ID: 4da8 (4da85563-4622)\nAddress: tcp:[10.0.0.1]:6643\nStatus: cluster member\n\
Role: leader\nTerm: 2\nLeader: self\nElection timer: 1000\nConnections:\nServers:\n    \
4da8 (4da8 at tcp:[10.0.0.1]:6643) (self) next_index=3 match_index=3\n    \
8b2c (8b2c at tcp:[10.0.0.2]:6643) last msg 14 ms ago\n    \
77aa (77aa at tcp:[10.0.0.1]:6643)\n";

    #[test]
    fn parses_cluster_status() {
        let status = ClusterStatus::parse(TEXT);
        assert!(status.is_member() && status.is_leader() && !status.is_broken());
        assert_eq!(status.server_id, "4da85563-4622");
        assert_eq!(status.election_timer, Some(1000));
        assert_eq!(status.servers.len(), 3);
    }

    #[test]
    fn stale_servers_have_our_address_or_a_recorded_id() {
        let status = ClusterStatus::parse(TEXT);
        let ids = |recorded: &[&str]| -> Vec<String> {
            let recorded: Vec<String> = recorded.iter().map(|r| (*r).to_owned()).collect();
            status.stale(&recorded).map(|m| m.id.clone()).collect()
        };
        assert_eq!(ids(&[]), ["77aa"]);
        assert_eq!(ids(&["8b2c0000-1111"]), ["8b2c", "77aa"]);
        assert_eq!(ids(&["4da85563-4622"]), ["77aa"], "never ourselves");
    }

    #[test]
    fn probe_rule() {
        let text = TEXT.replace("cluster member", "disconnected from the cluster");
        assert!(!ClusterStatus::parse(&text).is_broken());
        let text = text.replace("Role: leader", "Role: candidate");
        assert!(ClusterStatus::parse(&text).is_broken());
        assert!(ClusterStatus::parse("Status: failed to join\n").is_broken());
    }

    #[test]
    fn election_timer_doubles_at_most() {
        let mut timer = 1000;
        let mut steps = vec![];
        while let Some(next) = next_election_timer(timer, 5000) {
            steps.push(next);
            timer = next;
        }
        assert_eq!(steps, [2000, 4000, 5000]);
        assert_eq!(next_election_timer(10_000, 5000), None);
    }

    #[test]
    fn server_rows() {
        let result = json!({"rows": [{"model": "clustered", "connected": true, "leader": false,
            "cid": ["uuid", "c"], "sid": ["uuid", "s"]}]});
        let serving = parse_database(&result);
        assert_eq!(serving.as_ref().and_then(|s| s.cluster.clone()), Some("c".into()));
        assert_eq!(
            Peer::from(serving),
            Peer::Member { cluster: Some("c".into()), connected: true }
        );
        assert_eq!(Peer::from(parse_database(&json!({"rows": []}))), Peer::Blank);
        let joining = json!({"rows": [{"model": "clustered", "cid": ["set", []]}]});
        assert_eq!(parse_database(&joining).unwrap().cluster, None);
    }
}
