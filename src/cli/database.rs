//! The OVN databases: state, members, backup.

use std::{io::Write, os::unix::fs::OpenOptionsExt, path::PathBuf};

use anyhow::{Context, bail};
use clap::{Arg, ArgMatches, Command};
use serde::Serialize;

use super::{
    Arguments, FOUND, Session, Tool, argument,
    cluster::{Cluster, Database},
    database_restore::restore,
    output::{Tone, emit},
    output_arg,
};

macro_rules! tool {
    ($tool:ident, $name:literal, $about:literal, $example:literal, $database:expr) => {
        pub const $tool: Tool = Tool {
            name: $name,
            aliases: &[],
            about: $about,
            example: $example,
            arguments: Arguments::Own,
            command,
            run: |session, matches| Box::pin(run(session, matches, $database)),
        };
    };
}

tool!(
    NB,
    "nb",
    "The northbound database: status, kick, backup, restore, dbstatus",
    "nb status\nnb kick 8723\nnb backup\nnb restore",
    Database::Northbound
);
tool!(
    SB,
    "sb",
    "The southbound database: status, kick, backup, dbstatus",
    "sb status\nsb kick e9f7",
    Database::Southbound
);

fn command(command: Command) -> Command {
    let sub = |name: &'static str, about: &'static str| Command::new(name).about(about);
    command
        .subcommand_required(true)
        .subcommand(
            sub("status", "Members, leader, log; and whether its file is sound").arg(output_arg()),
        )
        .subcommand(
            sub("kick", "Remove a member").arg(
                Arg::new("server")
                    .required(true)
                    .value_name("SERVER_ID")
                    .help("Four or more digits of its id, see status"),
            ),
        )
        .subcommand(sub("backup", "Save the content in the current directory"))
        .subcommand(
            sub(
                "restore",
                "Make the database anew: from a backup while it runs, or without one from the best \
                 file of the members (ovn-central stops meanwhile; traffic goes on)",
            )
            .arg(Arg::new("file").value_name("BACKUP").help("File written by 'backup'")),
        )
        .subcommand(sub("dbstatus", "Whether the files of all members are sound").arg(output_arg()))
}

async fn run(
    session: &Session<'_>,
    matches: &ArgMatches,
    database: Database,
) -> anyhow::Result<u8> {
    let cluster = session.cluster().await?;
    match matches.subcommand() {
        Some(("status", inner)) => status(session.with_format(inner), &cluster, database).await,
        Some(("kick", inner)) => kick(&cluster, database, argument(inner, "server")).await,
        Some(("backup", _)) => backup(&cluster, database).await,
        Some(("restore", inner)) => restore(&cluster, database, argument(inner, "file")).await,
        Some(("dbstatus", inner)) => storage(&session.with_format(inner), &cluster).await,
        _ => bail!("write a subcommand: status, kick, backup, restore or dbstatus"),
    }
}

fn appctl<'a>(database: Database, socket: &'a str, rpc: &'a str) -> [&'a str; 5] {
    ["ovs-appctl", "-t", socket, rpc, database.schema()]
}

/// `cluster/status`, as far as programs ask for it.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Membership {
    pub name: String,
    pub cluster: String,
    pub server: String,
    pub status: String,
    pub role: String,
    pub leader: String,
    pub term: u64,
    pub servers: Vec<Member>,
    /// `ok`, or what is wrong with the file.
    pub storage: String,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Member {
    pub id: String,
    pub address: String,
    /// Last index known to be in the member's log.
    pub match_index: Option<u64>,
    /// Milliseconds since its last message; absent for the server itself.
    pub last_message: Option<u64>,
}

/// Reads the text of `cluster/status` and `get-db-storage-status`.
pub fn parse_membership(text: &str, storage: &str) -> Membership {
    let field = |name: &str| {
        let prefix = format!("{name}: ");
        text.lines().find_map(|l| l.strip_prefix(&prefix)).unwrap_or_default().trim().to_owned()
    };
    let members = text.lines().skip_while(|line| *line != "Servers:").skip(1);
    Membership {
        name: field("Name"),
        cluster: field("Cluster ID"),
        server: field("Server ID"),
        status: field("Status"),
        role: field("Role"),
        leader: field("Leader"),
        term: field("Term").parse().unwrap_or_default(),
        servers: members.take_while(|l| l.starts_with("    ")).filter_map(parse_member).collect(),
        storage: storage.trim().strip_prefix("status: ").unwrap_or(storage.trim()).to_owned(),
    }
}

/// `    8723 (8723 at tcp:[172.18.0.3]:6643) next_index=139 match_index=138 last msg 763 ms ago`
fn parse_member(line: &str) -> Option<Member> {
    let (id, rest) = line.trim().split_once(" (")?;
    let (_, rest) = rest.split_once(" at ")?;
    let (address, rest) = rest.split_once(')')?;
    let number = |key: &str| {
        let (_, tail) = rest.split_once(key)?;
        tail.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    Some(Member {
        id: id.to_owned(),
        address: address.to_owned(),
        match_index: number("match_index="),
        last_message: number("last msg "),
    })
}

async fn status(session: Session<'_>, cluster: &Cluster, database: Database) -> anyhow::Result<u8> {
    let at = cluster.leader(database).await?;
    let socket = database.control_socket();
    let ended = cluster.ask(&at, &appctl(database, &socket, "cluster/status")).await?;
    let text = match ended.code {
        0 => String::from_utf8_lossy(&ended.stdout).into_owned(),
        // A single server without raft has no such thing.
        _ => format!("Name: {}\nStatus: standalone\n", database.schema()),
    };
    let rpc = "ovsdb-server/get-db-storage-status";
    let storage = cluster.text(&at, &appctl(database, &socket, rpc)).await?;
    let membership = parse_membership(&text, &storage);
    let sound = membership.storage == "ok";
    emit(session.format, &membership, |_| format!("{text}{storage}"))?;
    Ok(if sound { 0 } else { FOUND })
}

async fn kick(cluster: &Cluster, database: Database, server: &str) -> anyhow::Result<u8> {
    let at = cluster.leader(database).await?;
    let socket = database.control_socket();
    let ended = cluster.ask(&at, &appctl(database, &socket, "cluster/status")).await?;
    let membership = parse_membership(&String::from_utf8_lossy(&ended.stdout), "");
    if membership.servers.len() <= 1 {
        bail!(
            "{} has one member only, and kicking it would leave nothing; 'kubectl ko {} status' \
             lists members",
            database.schema(),
            database.short()
        );
    }
    let command = appctl(database, &socket, "cluster/kick");
    let said = cluster.text(&at, &[&command[..], &[server]].concat()).await?;
    // A leader that is told to remove itself says nothing.
    println!("{}", if said.trim().is_empty() { "started removal" } else { said.trim() });
    Ok(0)
}

/// `ovnnb_db.<month day hour minute epoch>.backup`, upstream's form.
pub fn backup_name(database: Database, now: k8s_openapi::jiff::Timestamp) -> String {
    let stamp =
        now.to_zoned(k8s_openapi::jiff::tz::TimeZone::UTC).strftime("%m%d%H%M%s").to_string();
    format!("ovn{}_db.{stamp}.backup", database.short())
}

/// A consistent snapshot over the database protocol: no file is made in the pod (upstream
/// converted its file there, and left it behind when it was interrupted).
async fn backup(cluster: &Cluster, database: Database) -> anyhow::Result<u8> {
    let at = cluster.leader(database).await?;
    let socket = database.socket();
    let ended = cluster.ask(&at, &["ovsdb-client", "backup", &socket, database.schema()]).await?;
    if ended.code != 0 || !ended.stdout.starts_with(b"OVSDB ") {
        bail!("ovsdb-client backup in {} failed: {}", at.pod, ended.stderr.trim());
    }
    let name = backup_name(database, k8s_openapi::jiff::Timestamp::now());
    let path = std::env::current_dir().context("find the current directory")?.join(name);
    write_private(&path, &ended.stdout)?;
    println!("backup ovn-{} db to {}", database.short(), path.display());
    Ok(0)
}

/// A whole file that only its owner reads, or none.
pub fn write_private(path: &PathBuf, content: &[u8]) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&part);
    let written = file.and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&part, path)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written.with_context(|| format!("write {}", path.display()))
}

#[derive(Debug, Serialize)]
struct Storage {
    pod: String,
    node: String,
    database: &'static str,
    status: String,
}

async fn storage(session: &Session<'_>, cluster: &Cluster) -> anyhow::Result<u8> {
    let places = cluster.places("ovn-central", "ovn-central").await?;
    if places.is_empty() {
        bail!("no ready ovn-central pod in {}", cluster.namespace);
    }
    let mut all = Vec::new();
    for at in &places {
        for database in Database::BOTH {
            let socket = database.control_socket();
            let rpc = "ovsdb-server/get-db-storage-status";
            let status = match cluster.text(at, &appctl(database, &socket, rpc)).await {
                Ok(text) => text.trim().to_owned(),
                Err(error) => format!("{error:#}"),
            };
            let (pod, node) = (at.pod.clone(), at.node.clone());
            all.push(Storage { pod, node, database: database.short(), status });
        }
    }
    let sound = all.iter().all(|s| s.status == "status: ok");
    emit(session.format, &all, |all| {
        let line = |s: &Storage| {
            let tone = if s.status == "status: ok" { Tone::Good } else { Tone::Bad };
            format!("{} {} {}\n", s.pod, s.database, session.paint.tone(tone, &s.status))
        };
        all.iter().map(line).collect()
    })?;
    Ok(if sound { 0 } else { FOUND })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "306b\nName: OVN_Northbound\nCluster ID: 9a87 (9a872522)\n\
        Server ID: 306b (306b256b)\nAddress: tcp:[172.18.0.2]:6643\nStatus: cluster member\n\
        Role: leader\nTerm: 7\nLeader: self\nVote: self\n\nServers:\n    \
        85d6 (85d6 at tcp:[fd00::4]:6643) next_index=139 match_index=138 last msg 763 ms ago\n    \
        306b (306b at tcp:[172.18.0.2]:6643) (self) next_index=2 match_index=138\n";

    #[test]
    fn cluster_status_is_read() {
        let found = parse_membership(STATUS, "status: ok\n");
        assert_eq!((found.role.as_str(), found.term, found.storage.as_str()), ("leader", 7, "ok"));
        let member = Member {
            id: "85d6".into(),
            address: "tcp:[fd00::4]:6643".into(),
            match_index: Some(138),
            last_message: Some(763),
        };
        assert_eq!(found.servers.first(), Some(&member));
        assert_eq!(found.servers.len(), 2);
        assert_eq!(found.servers.last().and_then(|m| m.last_message), None);
    }

    #[test]
    fn backups_are_named_as_upstream_names_them() {
        let time = "2026-06-02T23:19:00Z".parse().expect("time");
        let name = backup_name(Database::Northbound, time);
        assert_eq!(name, "ovnnb_db.060223191780442340.backup");
    }
}
