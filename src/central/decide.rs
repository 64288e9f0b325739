//! Start, bootstrap, join or wait: the decision that must never make a second cluster.
//!
//! A new cluster is made only when every member of NODE_IPS is known to hold nothing at all: no
//! database and no saved header. Members that wait so run a server without a database, which
//! others recognise as [`Peer::Blank`]; a member with any evidence of a former cluster never does.
//! A blank majority is not enough: when a single master grows to three and is away meanwhile, the
//! two new ones are that majority, and the old one alone has the quorum of its own cluster. So a
//! silent member is waited for, and whoever knows that its data is lost takes it out of NODE_IPS.
//! Upstream decided by "nobody leads and I am first", which splits the brain also when the first
//! node loses its disk while the others have no quorum.

use super::dbfile::{Local, SavedHeader};

/// What a member answers to a query of its `_Server` database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    Unreachable,
    /// Serves, but has no such database.
    Blank,
    /// Serves a database that is not clustered.
    Standalone,
    Member {
        /// Absent while it is itself joining.
        cluster: Option<String>,
        /// In contact with a majority.
        connected: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// The first address of NODE_IPS: the only one that may bootstrap.
    First,
    Later,
}

#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    pub local: &'a Local,
    pub saved: Option<&'a SavedHeader>,
    pub rank: Rank,
    /// Our raft address.
    pub address: &'a str,
    /// Raft addresses of the other members.
    pub others: &'a [String],
    /// Answers of the other members; empty when nobody was asked.
    pub peers: &'a [Peer],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// An empty database of the schema.
    Schema,
    /// What our standalone file holds (restore, or growth of a single server).
    File,
    /// What our clustered file holds, after the address of a single member changed.
    Cluster,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Serve the file as it is.
    Start,
    /// Make a new cluster of one; the others join.
    Bootstrap(Contents),
    /// Make a file that joins; `cluster` guards against joining another one.
    Join { cluster: Option<String> },
    /// Ask again; the reason is for the log.
    Wait(&'static str),
}

/// `true` when a server without any database may listen for clients while we wait.
pub fn is_blank(local: &Local, saved: Option<&SavedHeader>) -> bool {
    *local == Local::Missing && saved.is_none()
}

/// `true` when no other member needs to be asked before [`decide`].
pub fn decides_alone(s: &Situation) -> bool {
    s.others.is_empty()
        || match s.local {
            Local::Member(header) => header.local_address == s.address,
            Local::Joining(header) => can_go_on_joining(s, &header.remote_addresses),
            Local::Removed(_) => true,
            _ => false,
        }
}

pub fn decide(s: &Situation) -> Decision {
    if let Local::Removed(_) = s.local {
        return Decision::Wait(
            "this server was removed from its cluster (cluster/kick); to add it again, delete its \
             database file and .hdr file",
        );
    }
    if s.others.is_empty() {
        return decide_single(s);
    }
    match s.local {
        Local::Member(header) if header.local_address == s.address => Decision::Start,
        Local::Member(_) => join_or(s, Decision::Wait("our address changed; no cluster to join")),
        Local::Joining(header) if can_go_on_joining(s, &header.remote_addresses) => Decision::Start,
        Local::Joining(_) => join_or(s, Decision::Wait("no member of a cluster answers yet")),
        Local::Standalone => join_or(
            s,
            match s.rank {
                Rank::First => Decision::Bootstrap(Contents::File),
                // The first is blank, and waits for us: it does not know whether we hold anything.
                Rank::Later if all_blank(s) => Decision::Bootstrap(Contents::File),
                Rank::Later => Decision::Wait("the first of NODE_IPS has to make the cluster"),
            },
        ),
        Local::Missing | Local::Unusable(_) => join_or(s, decide_without_data(s)),
        Local::Removed(_) => Decision::Wait("removed"),
    }
}

/// NODE_IPS names only us: nobody else can hold newer data.
fn decide_single(s: &Situation) -> Decision {
    match s.local {
        Local::Member(header) if header.local_address == s.address => Decision::Start,
        Local::Member(_) => Decision::Bootstrap(Contents::Cluster),
        Local::Standalone => Decision::Bootstrap(Contents::File),
        _ => Decision::Bootstrap(Contents::Schema),
    }
}

/// A joining file is kept as long as it asks somebody who is still a member: making another one
/// would leave its server id behind in the cluster.
fn can_go_on_joining(s: &Situation, remotes: &[String]) -> bool {
    let ours = match s.local {
        Local::Joining(header) => header.local_address == s.address,
        _ => false,
    };
    ours && remotes.iter().any(|remote| s.others.contains(remote))
}

/// Joins the cluster that most members are in, the connected one first.
fn join_or(s: &Situation, otherwise: Decision) -> Decision {
    let clusters = s.peers.iter().filter_map(|peer| match peer {
        Peer::Member { cluster: Some(cluster), connected } => Some((cluster, *connected)),
        _ => None,
    });
    let votes = |cluster: &str| {
        let of = |p: &&Peer| matches!(p, Peer::Member { cluster: Some(c), .. } if c == cluster);
        s.peers.iter().filter(of).count()
    };
    match clusters.max_by_key(|(cluster, connected)| (*connected, votes(cluster))) {
        Some((cluster, _)) => Decision::Join { cluster: Some(cluster.clone()) },
        None => otherwise,
    }
}

/// No usable file, and no member of a cluster answers.
fn decide_without_data(s: &Situation) -> Decision {
    if s.saved.is_some() {
        return Decision::Wait("we were in a cluster (.hdr file); waiting for one of its members");
    }
    if s.rank == Rank::Later {
        return Decision::Wait("the first of NODE_IPS has to make the cluster");
    }
    if s.peers.contains(&Peer::Standalone) {
        return Decision::Wait("another member serves standalone data");
    }
    if s.peers.iter().any(|peer| matches!(peer, Peer::Member { .. })) {
        return Decision::Wait("another member is joining a cluster of which nobody answers");
    }
    if all_blank(s) {
        return Decision::Bootstrap(Contents::Schema);
    }
    Decision::Wait(
        "a silent member may hold a cluster, for which one member is enough when NODE_IPS grew: \
         bring it back, or take it out of NODE_IPS (node label kube-ovn/role) if its data is lost",
    )
}

fn all_blank(s: &Situation) -> bool {
    s.peers.len() == s.others.len() && s.peers.iter().all(|peer| *peer == Peer::Blank)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::central::dbfile::RaftHeader;

    const US: &str = "tcp:[10.0.0.1]:6643";

    fn header(address: &str, remotes: &[&str]) -> RaftHeader {
        RaftHeader {
            name: "OVN_Northbound".into(),
            server_id: "s1".into(),
            cluster_id: remotes.is_empty().then(|| "c1".into()),
            local_address: address.into(),
            remote_addresses: remotes.iter().map(|r| (*r).into()).collect(),
        }
    }

    fn saved() -> SavedHeader {
        SavedHeader {
            server_id: "s1".into(),
            name: "OVN_Northbound".into(),
            local_address: US.into(),
            cluster_id: "c1".into(),
            peers: vec![],
            stale: vec![],
        }
    }

    fn member(cluster: &str, connected: bool) -> Peer {
        Peer::Member { cluster: Some(cluster.into()), connected }
    }

    struct Case {
        local: Local,
        saved: Option<SavedHeader>,
        rank: Rank,
        peers: Vec<Peer>,
        others: usize,
    }

    impl Case {
        fn of(local: Local, peers: Vec<Peer>) -> Self {
            Case { local, saved: None, rank: Rank::First, others: peers.len(), peers }
        }

        fn decide(&self) -> Decision {
            let others: Vec<String> =
                (0..self.others).map(|i| format!("tcp:[10.0.0.{}]:6643", i + 2)).collect();
            decide(&Situation {
                local: &self.local,
                saved: self.saved.as_ref(),
                rank: self.rank,
                address: US,
                others: &others,
                peers: &self.peers,
            })
        }
    }

    fn waits(decision: &Decision) -> bool {
        matches!(decision, Decision::Wait(_))
    }

    #[test]
    fn fresh_install_the_first_bootstraps_when_all_are_blank() {
        let mut case = Case::of(Local::Missing, vec![Peer::Blank, Peer::Blank]);
        assert_eq!(case.decide(), Decision::Bootstrap(Contents::Schema));
        case.rank = Rank::Later;
        assert!(waits(&case.decide()));
    }

    /// One master, alone in its cluster, becomes three and is away: no answer of the two new ones
    /// may lead to another cluster, whoever is the first of NODE_IPS.
    #[test]
    fn growth_from_one_to_three_with_the_old_member_away_never_bootstraps() {
        for local in [Local::Missing, Local::Unusable("junk".into())] {
            let mut case = Case::of(local, vec![Peer::Blank, Peer::Unreachable]);
            for rank in [Rank::First, Rank::Later] {
                case.rank = rank;
                assert!(waits(&case.decide()));
            }
        }
        // It comes back: with its cluster, or with the file of a server that was alone.
        let case = Case::of(Local::Missing, vec![Peer::Blank, member("c1", true)]);
        assert_eq!(case.decide(), Decision::Join { cluster: Some("c1".into()) });
        let case = Case::of(Local::Missing, vec![Peer::Blank, Peer::Standalone]);
        assert!(waits(&case.decide()));
        let mut case = Case::of(Local::Standalone, vec![Peer::Blank, Peer::Blank]);
        case.rank = Rank::Later;
        assert_eq!(case.decide(), Decision::Bootstrap(Contents::File));
        case.peers[1] = Peer::Unreachable;
        assert!(waits(&case.decide()));
        // Its data is lost, and it was taken out of NODE_IPS.
        let case = Case::of(Local::Missing, vec![Peer::Blank]);
        assert_eq!(case.decide(), Decision::Bootstrap(Contents::Schema));
    }

    #[test]
    fn a_member_that_is_joining_proves_a_cluster() {
        let joining = Peer::Member { cluster: None, connected: false };
        let case = Case::of(Local::Missing, vec![Peer::Blank, joining]);
        assert!(waits(&case.decide()));
    }

    /// Every combination of two members' knowledge: never do two of them bootstrap.
    #[test]
    fn two_members_never_both_bootstrap() {
        let locals = || {
            [Local::Missing, Local::Standalone, Local::Unusable("junk".into())]
                .into_iter()
                .flat_map(|local| [(local.clone(), None), (local, Some(saved()))])
        };
        // What the other sees of a member that waits.
        let shown =
            |local: &Local, header: &Option<SavedHeader>| match is_blank(local, header.as_ref()) {
                true => Peer::Blank,
                false => Peer::Unreachable,
            };
        for (first, first_saved) in locals() {
            for (later, later_saved) in locals() {
                let decide = |rank, local: &Local, saved: &Option<SavedHeader>, peer| {
                    let mut case = Case::of(local.clone(), vec![peer]);
                    (case.rank, case.saved) = (rank, saved.clone());
                    matches!(case.decide(), Decision::Bootstrap(_))
                };
                let of_later = shown(&later, &later_saved);
                let of_first = shown(&first, &first_saved);
                let both = decide(Rank::First, &first, &first_saved, of_later)
                    && decide(Rank::Later, &later, &later_saved, of_first);
                assert!(!both, "{first:?} {later:?}");
            }
        }
    }

    #[test]
    fn upstream_trap_quorum_loss_and_lost_disk_of_the_first_never_bootstraps() {
        for peers in [
            vec![Peer::Unreachable, Peer::Unreachable],
            vec![Peer::Unreachable, Peer::Blank, Peer::Unreachable, Peer::Unreachable],
        ] {
            let case = Case::of(Local::Missing, peers);
            assert!(waits(&case.decide()));
        }
        // One of them answers, without a leader: its cluster is joined, not replaced.
        let case = Case::of(Local::Missing, vec![Peer::Unreachable, member("c1", false)]);
        assert_eq!(case.decide(), Decision::Join { cluster: Some("c1".into()) });
    }

    #[test]
    fn a_saved_header_forbids_bootstrap() {
        let mut case = Case::of(Local::Missing, vec![Peer::Blank, Peer::Blank]);
        case.saved = Some(saved());
        assert!(waits(&case.decide()));
        assert!(!is_blank(&case.local, case.saved.as_ref()));
        case.peers[1] = member("c2", true);
        assert_eq!(case.decide(), Decision::Join { cluster: Some("c2".into()) });
    }

    #[test]
    fn all_nodes_reboot_every_member_just_starts() {
        let mut case =
            Case::of(Local::Member(header(US, &[])), vec![Peer::Unreachable, Peer::Unreachable]);
        assert_eq!(case.decide(), Decision::Start);
        case.rank = Rank::Later;
        assert_eq!(case.decide(), Decision::Start);
    }

    #[test]
    fn a_corrupt_file_rejoins_and_never_votes_blank() {
        let corrupt = || Local::Unusable("junk".into());
        let case = Case::of(corrupt(), vec![member("c1", true), Peer::Blank]);
        assert_eq!(case.decide(), Decision::Join { cluster: Some("c1".into()) });
        let case = Case::of(corrupt(), vec![Peer::Blank, Peer::Unreachable]);
        assert!(waits(&case.decide()));
        let case = Case::of(corrupt(), vec![Peer::Blank, Peer::Blank]);
        assert_eq!(case.decide(), Decision::Bootstrap(Contents::Schema));
    }

    #[test]
    fn the_connected_cluster_wins_over_the_larger_dead_one() {
        let peers = vec![member("old", false), member("old", false), member("new", true)];
        let case = Case::of(Local::Missing, peers);
        assert_eq!(case.decide(), Decision::Join { cluster: Some("new".into()) });
    }

    #[test]
    fn a_joining_file_is_kept_while_it_asks_a_member() {
        let asks = |remote: &str| Local::Joining(header(US, &[remote]));
        let case =
            Case::of(asks("tcp:[10.0.0.2]:6643"), vec![Peer::Unreachable, Peer::Unreachable]);
        assert_eq!(case.decide(), Decision::Start);
        let case = Case::of(asks("tcp:[10.9.9.9]:6643"), vec![member("c1", true), Peer::Blank]);
        assert_eq!(case.decide(), Decision::Join { cluster: Some("c1".into()) });
    }

    #[test]
    fn restore_procedure_the_first_bootstraps_from_its_standalone_file() {
        let mut case = Case::of(Local::Standalone, vec![Peer::Unreachable, Peer::Blank]);
        case.saved = Some(saved());
        assert_eq!(case.decide(), Decision::Bootstrap(Contents::File));
        case.peers[0] = member("c1", true);
        assert_eq!(case.decide(), Decision::Join { cluster: Some("c1".into()) });
    }

    #[test]
    fn single_member_keeps_its_data_when_its_address_changes() {
        let case = Case::of(Local::Member(header("tcp:[10.0.0.9]:6643", &[])), vec![]);
        assert_eq!(case.decide(), Decision::Bootstrap(Contents::Cluster));
        let case = Case::of(Local::Missing, vec![]);
        assert_eq!(case.decide(), Decision::Bootstrap(Contents::Schema));
    }

    #[test]
    fn changed_address_of_a_member_joins_again() {
        let local = || Local::Member(header("tcp:[10.0.0.9]:6643", &[]));
        let case = Case::of(local(), vec![member("c1", true), member("c1", true)]);
        assert_eq!(case.decide(), Decision::Join { cluster: Some("c1".into()) });
        assert!(waits(&Case::of(local(), vec![Peer::Unreachable, Peer::Unreachable]).decide()));
    }

    #[test]
    fn a_kicked_server_stays_out() {
        let case = Case::of(Local::Removed(header(US, &[])), vec![member("c1", true), Peer::Blank]);
        assert!(waits(&case.decide()));
    }
}
