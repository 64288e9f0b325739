//! `adopt`: what remains of the Kube-OVN that wrote the database before. The controller claims rows
//! by natural key when it starts; rows of its predecessor that have no successor of the same name
//! stay until they are removed here.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};
use serde::Serialize;

use super::{
    Arguments, FOUND, Session, Tool, bundle_arg,
    cluster::{Cluster, Database, each, text},
    desired::{northbound, world},
    differences::{differences, full_batch, plain, shown},
    output::{Tone, count, emit},
    output_arg,
};
use crate::{
    ovn::FEATURES,
    ovsdb::{
        datum::Datum,
        replica::{Replica, Row},
        schema::nb,
        transaction::{Operation, Transaction},
    },
    plan::{Engine, Takeover, removal, takeover},
};

pub const TOOL: Tool = Tool {
    name: "adopt",
    aliases: &[],
    about: "Take over from upstream Kube-OVN: show what is claimed and left, remove what is orphaned",
    example: "adopt --plan\nadopt --apply\nadopt --plan -o json",
    arguments: Arguments::Own,
    command: |command: Command| {
        let verb = |name: &'static str, help: &'static str| {
            Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
        };
        command
            .arg(output_arg())
            .arg(bundle_arg())
            .arg(verb("plan", "Only show; exit code 3 when something is left to do"))
            .arg(verb("apply", "Remove the orphans, once the controller has claimed its rows"))
            .group(ArgGroup::new("verb").args(["plan", "apply"]).required(true))
    },
    run: |session, matches| Box::pin(run(session, matches)),
};

/// Operations in one transaction; they travel as an argument of a program.
const BATCH: usize = 400;
/// Lines of a group on a screen.
const SHOWN: usize = 20;

/// A row of somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    pub table: &'static str,
    pub name: String,
    pub uuid: String,
    /// The identity it gets, or what is to be known before it goes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// Every row without an identity of ours.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Adoption {
    pub claimed: Vec<Line>,
    pub replaced: Vec<Line>,
    pub removed: Vec<Line>,
    pub left: Vec<Line>,
}

/// Names of upstream's shared load balancers, of the default VPC and of others; a Vpc's status
/// tells those that flags renamed.
fn is_shared_load_balancer(name: &str, recorded: &BTreeSet<String>) -> bool {
    let suffix = |s: &str| matches!(s, "load" | "sess-load");
    let of_vpc = || {
        let rest = name.strip_prefix("vpc-")?;
        let protocol = ["-tcp-", "-udp-", "-sctp-"].into_iter();
        protocol
            .filter_map(|p| rest.rsplit_once(p))
            .map(|(vpc, end)| !vpc.is_empty() && suffix(end))
            .find(|is| *is)
    };
    let of_cluster = || {
        let protocol = name.strip_prefix("cluster-")?.strip_suffix("loadbalancer")?;
        Some(
            ["tcp-", "udp-", "sctp-", "tcp-session-", "udp-session-", "sctp-session-"]
                .contains(&protocol),
        )
    };
    recorded.contains(name) || of_cluster() == Some(true) || of_vpc() == Some(true)
}

/// Whether upstream's controller made the row: by its marks, never by guess. Hand-made rows carry
/// none of them.
pub fn is_upstreams(row: &Row, load_balancers: &BTreeSet<String>) -> bool {
    let ids = row.table().column("external_ids");
    let id = |key: &str| ids.and_then(|column| row.entry(column, key));
    let any = |keys: &[&str]| keys.iter().any(|key| id(key).is_some());
    if id("vendor").is_some_and(|vendor| &**vendor == "kube-ovn") {
        return true;
    }
    let name = row.table().column("name").and_then(|column| row.text(column));
    let name = name.map_or("", |name| name);
    match row.table().name {
        "Load_Balancer" => is_shared_load_balancer(name, load_balancers),
        "Port_Group" => {
            any(&["np", "anp", "banp"])
                || id("type").is_some_and(|kind| &**kind == "security_group")
                || (any(&["subnet", "ls"]) && any(&["node", "lr"]))
        }
        "Address_Set" => any(&["np", "anp", "banp", "sg"]),
        "ACL" => any(&["parent"]),
        "Load_Balancer_Health_Check" => any(&["switch_lb_subnet"]),
        _ => false,
    }
}

/// The groups of a take-over in words.
pub fn describe_takeover(found: &Takeover<'_>, replica: &Replica) -> Adoption {
    let line = |row: &Row, note: String| Line {
        table: row.table().name,
        name: shown(row),
        uuid: row.uuid.to_string(),
        note,
    };
    let plainly = |rows: &[&Row]| rows.iter().map(|row| line(row, String::new())).collect();
    let served = served(replica);
    let removed = found.orphans.iter().map(|row| line(row, unserved(row, &served)));
    Adoption {
        claimed: found.claimed.iter().map(|(key, row)| line(row, key.id.to_string())).collect(),
        replaced: plainly(&found.replaced),
        removed: removed.collect(),
        left: plainly(&found.left),
    }
}

fn addresses_of(row: &Row) -> BTreeSet<String> {
    match row.get(nb::load_balancer::VIPS) {
        Some(Datum::Map(vips)) => vips.keys().map(plain).collect(),
        _ => BTreeSet::new(),
    }
}

/// Addresses and ports of the load balancers that are ours.
fn served(replica: &Replica) -> BTreeSet<String> {
    let ours = replica.rows(&nb::LOAD_BALANCER).filter(|row| row.id().is_some());
    ours.flat_map(addresses_of).collect()
}

/// A shared load balancer may hold addresses that nothing else serves: hand-made ones, or Services
/// that are gone.
fn unserved(row: &Row, served: &BTreeSet<String>) -> String {
    let alone: Vec<String> = addresses_of(row).difference(served).cloned().collect();
    match alone.as_slice() {
        [] => String::new(),
        alone => format!("nothing else serves {}", alone.join(", ")),
    }
}

async fn run(session: &Session<'_>, matches: &ArgMatches) -> anyhow::Result<u8> {
    let cluster = session.cluster().await?;
    let world = world(&cluster, session.engine).await?;
    let replica = northbound(&cluster, session.engine).await?;
    let engine = Engine::from_store(FEATURES, &world.store);
    let recorded = load_balancers(&cluster).await?;
    let found = takeover(engine.desired(), &replica, |row| is_upstreams(row, &recorded));
    let adoption = describe_takeover(&found, &replica);
    if !matches.get_flag("apply") {
        emit(session.format, &adoption, |adoption| screen(session, adoption))?;
        let open = found.claimed.len() + found.replaced.len() + found.orphans.len();
        return Ok(if open == 0 { 0 } else { FOUND });
    }
    cluster.must_be_live()?;
    // Before our rows stand, upstream's carry the traffic.
    let missing = differences(&engine, &replica, &full_batch(&engine, &replica)).len();
    if missing > 0 || !found.claimed.is_empty() {
        bail!(
            "the controller has not taken over yet: {} still to claim, {} not as wanted; wait with \
             'kubectl ko status --wait' (and look at 'kubectl ko audit')",
            count(found.claimed.len(), "row"),
            count(missing, "row")
        );
    }
    apply(&cluster, &removal(&found, &replica)).await?;
    emit(session.format, &adoption, |adoption| {
        let removed = group(session, "Removed", &adoption.removed);
        let total = count(adoption.removed.len(), "row");
        removed + &format!("{total} of upstream removed, {} left\n", adoption.left.len())
    })?;
    Ok(0)
}

/// Names that the Vpcs record.
async fn load_balancers(cluster: &Cluster) -> anyhow::Result<BTreeSet<String>> {
    let vpcs = cluster.list("/apis/kubeovn.io/v1/vpcs", "").await?;
    let mut names = BTreeSet::new();
    for vpc in &vpcs {
        for protocol in ["tcp", "udp", "sctp"] {
            for field in ["LoadBalancer", "SessionLoadBalancer"] {
                let name = text(&vpc["status"][format!("{protocol}{field}")]);
                names.insert(name.to_owned());
            }
        }
    }
    names.remove("");
    Ok(names)
}

async fn apply(cluster: &Cluster, operations: &[Operation]) -> anyhow::Result<()> {
    let database = Database::Northbound;
    let at = cluster.leader(database).await?;
    for batch in operations.chunks(BATCH) {
        let transaction = Transaction { operations: batch.to_vec() };
        let parameters = transaction.to_params(&nb::DATABASE).to_string();
        let socket = database.socket();
        let command = ["ovsdb-client", "transact", &socket, &parameters];
        let said = cluster.text(&at, &command).await.context("remove rows of upstream")?;
        let results: serde_json::Value =
            serde_json::from_str(&said).context("read the answer of the database")?;
        if let Some(refused) = each(&results).find(|result| result.get("error").is_some()) {
            bail!("the database refused the removal: {refused}");
        }
    }
    Ok(())
}

fn group(session: &Session<'_>, title: &str, lines: &[Line]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let mut out = session.paint.tone(Tone::Title, title) + "\n";
    for line in lines.iter().take(SHOWN) {
        let text = format!("  {} {}  {}", line.table, line.name, line.note);
        out.push_str(text.trim_end());
        out.push('\n');
    }
    if lines.len() > SHOWN {
        out.push_str(&format!("  and {} more (-o json shows all)\n", lines.len() - SHOWN));
    }
    out
}

fn screen(session: &Session<'_>, adoption: &Adoption) -> String {
    let groups = [
        ("Claimed by the controller: they keep their UUID", &adoption.claimed),
        ("Replaced in the same transaction", &adoption.replaced),
        ("Orphans of upstream: --apply removes them", &adoption.removed),
        ("Left alone: made by others", &adoption.left),
    ];
    let mut out: String =
        groups.iter().map(|(title, lines)| group(session, title, lines)).collect();
    out.push_str(&format!(
        "{} to claim, {} to replace, {} to remove, {} left alone\n",
        adoption.claimed.len(),
        adoption.replaced.len(),
        adoption.removed.len(),
        adoption.left.len()
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_load_balancers_by_name() {
        let recorded = BTreeSet::from(["renamed".to_owned()]);
        for name in [
            "cluster-tcp-loadbalancer",
            "cluster-sctp-session-loadbalancer",
            "vpc-a-b-udp-load",
            "vpc-x-tcp-sess-load",
            "renamed",
        ] {
            assert!(is_shared_load_balancer(name, &recorded), "{name}");
        }
        for name in ["cluster-loadbalancer", "vpc-tcp-load", "my-lb", "vpc-a-http-load", ""] {
            assert!(!is_shared_load_balancer(name, &recorded), "{name}");
        }
    }
}
