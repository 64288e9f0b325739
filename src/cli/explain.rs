//! `explain`: why a row exists, and who else writes into it.

use anyhow::bail;
use clap::{Arg, ArgMatches, Command};
use serde::Serialize;

use super::{
    Arguments, Session, Tool, argument, bundle_arg,
    cluster::Cluster,
    desired::{all_columns, replica_of, world},
    differences::{plain, shown},
    output::{Tone, emit},
    output_arg,
};
use crate::{
    ovn::FEATURES,
    ovsdb::{
        datum::{Atom, Datum},
        replica::{Replica, Row},
        row::RowKey,
        schema::nb,
    },
    plan::{Engine, explain_row},
    store::Owner,
};

pub const TOOL: Tool = Tool {
    name: "explain",
    aliases: &[],
    about: "Say which object and which feature made a row, or which policy decides over a packet",
    example: "explain default/client\nexplain client.default\nexplain 5e4b9b3a\n\
              explain ovn-default -o json\n\
              explain --from default/client --to shop/web --port tcp/80",
    arguments: Arguments::Own,
    command: |command: Command| {
        let question = |name: &'static str, value: &'static str, help: &'static str| {
            Arg::new(name).long(name).value_name(value).help(help)
        };
        let side = "[NAMESPACE/]POD|node//NODE";
        command
            .arg(output_arg())
            .arg(bundle_arg())
            .arg(
                Arg::new("row")
                    .required_unless_present("from")
                    .conflicts_with("from")
                    .value_name("ROW|POD|PORT")
                    .help("NAMESPACE/POD, the name of a port or another row, or (part of) a UUID"),
            )
            .arg(question("from", side, "Who sends the packet").requires("to").requires("port"))
            .arg(question("to", "POD|NODE|IP", "Whom it is for").requires("from"))
            .arg(question("port", "tcp/PORT|udp/PORT|icmp", "What it is").requires("from"))
    },
    run: |session, matches| Box::pin(run(session, matches)),
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explained {
    table: String,
    name: String,
    uuid: String,
    /// `kube-ovn/id`; empty when the row is not ours.
    id: String,
    made_by: Vec<String>,
    columns: Vec<(String, String)>,
    /// Elements that other objects put into the row.
    contributions: Vec<(String, String)>,
    /// Rows that refer to it.
    used_by: Vec<String>,
    note: String,
}

async fn run(session: &Session<'_>, matches: &ArgMatches) -> anyhow::Result<u8> {
    if matches.contains_id("from") {
        let words = ["from", "to", "port"].map(|name| argument(matches, name));
        return super::explain_policy::run(session, words).await;
    }
    let wish = argument(matches, "row");
    let cluster = session.cluster().await?;
    let replica = whole(&cluster).await?;
    let world = world(&cluster, session.engine).await?;
    let engine = Engine::from_store(FEATURES, &world.store);
    let rows = find(&replica, wish);
    if rows.is_empty() {
        bail!("no northbound row has the name, pod, id or UUID {wish:?}");
    }
    let all: Vec<Explained> = rows.iter().map(|row| explained(&engine, &replica, row)).collect();
    emit(session.format, &all, |all| {
        all.iter().map(|one| described(session, one)).collect::<Vec<_>>().join("\n")
    })?;
    Ok(0)
}

/// With the columns that the controller does not look at.
pub async fn whole(cluster: &Cluster) -> anyhow::Result<Replica> {
    let database = super::cluster::Database::Northbound;
    let at = cluster.leader(database).await?;
    let socket = database.socket();
    let command = ["ovsdb-client", "--format=json", "dump", &socket, "OVN_Northbound"];
    replica_of(&cluster.text(&at, &command).await?, &all_columns())
}

/// Rows of that name, of that pod, with that identity, or whose UUID begins so.
fn find<'r>(replica: &'r Replica, wish: &str) -> Vec<&'r Row> {
    let uuid = wish.len() >= 4 && wish.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let fits = |row: &Row| {
        let text = |column: &str| row.table().column(column).and_then(|column| row.text(column));
        let ids = row.table().column("external_ids");
        let pod = ids.and_then(|column| row.entry(column, "pod"));
        text("name").is_some_and(|name| &**name == wish)
            || row.id().is_some_and(|id| &**id == wish)
            || pod.is_some_and(|pod| &**pod == wish)
            || (uuid && row.uuid.to_string().starts_with(wish))
    };
    let mut rows: Vec<&Row> = nb::DATABASE
        .tables
        .iter()
        .flat_map(|table| replica.rows(table))
        .filter(|r| fits(r))
        .collect();
    rows.sort_by_key(|row| (row.table().name, row.uuid));
    rows
}

fn explained(engine: &Engine, replica: &Replica, row: &Row) -> Explained {
    let id = row.id().map(|id| id.to_string()).unwrap_or_default();
    let key = match row.table().is_root && id.is_empty() && row.table().name == "NB_Global" {
        true => RowKey::singleton(row.table()),
        false => RowKey { table: row.table(), id: id.clone().into() },
    };
    let why = explain_row(engine.desired(), &key);
    let (made_by, contributions) = match &why {
        Some(why) => (
            why.made_by.iter().map(owner).collect(),
            why.contributions
                .iter()
                .map(|(column, element, owners)| {
                    let owners: Vec<String> = owners.iter().map(owner).collect();
                    (format!("{column} {element}"), owners.join(", "))
                })
                .collect(),
        ),
        None => (Vec::new(), Vec::new()),
    };
    let note = match (&why, id.is_empty()) {
        (Some(_), _) => String::new(),
        (None, true) => "it carries no identity of ours: made by somebody else".to_owned(),
        (None, false) => {
            let mut parts = id.splitn(3, ':');
            let (feature, of) = (parts.next(), parts.next());
            format!(
                "made by feature {} for {}, and wanted by nobody now",
                feature.unwrap_or_default(),
                of.unwrap_or_default()
            )
        }
    };
    Explained {
        table: row.table().name.to_owned(),
        name: shown(row),
        uuid: row.uuid.to_string(),
        id,
        made_by,
        columns: columns(row),
        contributions,
        used_by: used_by(replica, row),
        note,
    }
}

pub fn owner(owner: &Owner) -> String {
    let key = if owner.key.is_empty() { "(flags of the controller)" } else { &owner.key };
    format!("feature {} for {} {key}", owner.feature, owner.kind.name())
}

/// Columns that hold something.
fn columns(row: &Row) -> Vec<(String, String)> {
    let all = all_columns();
    let columns = all.iter().find(|(table, _)| *table == row.table()).map(|(_, columns)| *columns);
    let value = |datum: &Datum| match datum {
        Datum::Set(set) => set.iter().map(plain).collect::<Vec<_>>().join(", "),
        Datum::Map(map) => map
            .iter()
            .map(|(k, v)| format!("{}={}", plain(k), plain(v)))
            .collect::<Vec<_>>()
            .join(", "),
    };
    let cells = columns.into_iter().flatten().filter_map(|column| {
        let text = value(row.get(*column)?);
        (!text.is_empty()).then(|| (column.name().to_owned(), text))
    });
    cells.collect()
}

fn used_by(replica: &Replica, row: &Row) -> Vec<String> {
    let wanted = Atom::Uuid(row.uuid);
    let mut found = Vec::new();
    for (table, columns) in all_columns() {
        for other in replica.rows(table) {
            for column in columns.iter().filter(|c| c.schema().key.reference.is_some()) {
                if let Some(Datum::Set(set)) = other.get(*column)
                    && set.contains(&wanted)
                {
                    found.push(format!("{}.{} of {}", table.name, column.name(), shown(other)));
                }
            }
        }
    }
    found.sort();
    found
}

fn described(session: &Session<'_>, one: &Explained) -> String {
    let title = format!("{} {}", one.table, one.name);
    let mut text = session.paint.tone(Tone::Title, &title) + "\n";
    let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<12} {value}\n"));
    line("uuid", &one.uuid);
    if !one.id.is_empty() {
        line("id", &one.id);
    }
    one.made_by.iter().for_each(|by| line("made by", by));
    if !one.note.is_empty() {
        line("note", &one.note);
    }
    one.used_by.iter().for_each(|by| line("used by", by));
    for (column, value) in &one.columns {
        if column != "external_ids" && value.len() < 200 {
            line(column, value);
        }
    }
    let shown = one.contributions.iter().take(20);
    shown.for_each(|(what, by)| line("contributed", &format!("{what}: {by}")));
    if one.contributions.len() > 20 {
        line("", &format!("and {} more (-o json shows all)", one.contributions.len() - 20));
    }
    text
}
