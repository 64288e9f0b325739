//! `plan`: what a change would do, before it is made. The objects of the cluster and the changed
//! ones go through the controller's own engine; nothing is written.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Arguments, Session, Tool, bundle_arg,
    cluster::{Cluster, text},
    desired::{World, northbound, world},
    differences::{Difference, describe, differences},
    output::{Tone, count, emit},
    output_arg,
    tape::Tape,
};
use crate::{
    api::Kind,
    ovn::FEATURES,
    plan::{Batch, Cause, Engine},
    store::{Problem, Read, Store},
};

pub const TOOL: Tool = Tool {
    name: "plan",
    aliases: &[],
    about: "Show the northbound rows and the pods that a change would touch, without making it",
    example: "plan -f subnet.yaml\nplan -f old-vpc.yaml --delete",
    arguments: Arguments::Own,
    command: |command: Command| {
        command
            .arg(output_arg())
            .arg(bundle_arg())
            .arg(
                Arg::new("file")
                    .short('f')
                    .long("filename")
                    .required(true)
                    .value_name("FILE")
                    .help("Objects as for kubectl apply; - is standard input"),
            )
            .arg(
                Arg::new("delete")
                    .long("delete")
                    .action(ArgAction::SetTrue)
                    .help("As for kubectl delete: the objects would go"),
            )
    },
    run: |session, matches| Box::pin(run(session, matches)),
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Apply,
    Delete,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Planned {
    rows: Vec<Difference>,
    /// Pods whose own rows or annotations change.
    pods: Vec<String>,
    /// Other objects that the change concerns, `feature Kind/name`.
    owners: Vec<String>,
    /// Problems that the change brings.
    problems: Vec<String>,
    /// Objects of the file that would be refused.
    refused: Vec<String>,
}

async fn run(session: &Session<'_>, matches: &ArgMatches) -> anyhow::Result<u8> {
    let file = matches.get_one::<String>("file").map_or("-", String::as_str);
    let verb = if matches.get_flag("delete") { Verb::Delete } else { Verb::Apply };
    let text = match file {
        "-" => std::io::read_to_string(std::io::stdin()).context("read standard input")?,
        file => std::fs::read_to_string(file).with_context(|| format!("read {file}"))?,
    };
    let documents = parse_documents(&text)?;
    let cluster = session.cluster().await?;
    let tape = Arc::new(Tape::default());
    let recorded = cluster.recording(&tape);
    let now = world(&recorded, session.engine).await?;
    let replica = northbound(&cluster, session.engine).await?;
    let changed = Arc::new(Tape::default());
    for (path, list) in tape.lists() {
        changed.insert(&path, list);
    }
    for document in &documents {
        overlay(&changed, document, verb)?;
    }
    let then = world(&Cluster::replay(changed, &cluster.namespace), session.engine).await?;
    let mut engine = Engine::from_store(FEATURES, &now.store);
    let before: BTreeSet<Problem> = engine.problems().into_iter().cloned().collect();
    let refused = refused(&now, &then);
    let mut store = now.store;
    let reads = transition(&mut store, &then.store);
    let refresh = engine.refresh(&store, reads.iter().map(|(read, cause)| (read, *cause)));
    let concerned: BTreeSet<_> = refresh
        .touched
        .iter()
        .map(|(owner, ..)| owner.clone())
        .chain(refresh.republish.iter().cloned())
        .collect();
    let batch = Batch { owners: refresh.touched };
    let of_pods = |kind: Kind| kind == Kind::Pod;
    let planned = Planned {
        rows: differences(&engine, &replica, &batch),
        pods: concerned.iter().filter(|o| of_pods(o.kind)).map(|o| o.key.to_string()).collect(),
        owners: concerned.iter().filter(|o| !of_pods(o.kind)).map(|o| format!("{o:?}")).collect(),
        problems: engine
            .problems()
            .into_iter()
            .filter(|problem| !before.contains(problem))
            .map(|p| format!("{} {}: {}", p.kind.name(), p.key, p.message))
            .collect(),
        refused,
    };
    emit(session.format, &planned, |planned| described(session, planned))?;
    let bad = !planned.refused.is_empty() || !planned.problems.is_empty();
    Ok(if bad { super::FOUND } else { 0 })
}

/// The documents of a YAML file; a List counts as its items.
pub fn parse_documents(text: &str) -> anyhow::Result<Vec<Value>> {
    let mut all = Vec::new();
    for part in format!("\n{text}").split("\n---") {
        if part.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            continue;
        }
        let document: Value = serde_saphyr::from_str(part).context("read the YAML")?;
        match document["items"].as_array() {
            Some(items) if document["kind"] == "List" => all.extend(items.iter().cloned()),
            _ => all.push(document),
        }
    }
    if all.is_empty() {
        bail!("the file holds no object");
    }
    Ok(all)
}

/// Puts an object over the one on the tape.
fn overlay(tape: &Tape, document: &Value, verb: Verb) -> anyhow::Result<()> {
    let (kind, name) = (text(&document["kind"]), text(&document["metadata"]["name"]));
    if kind.is_empty() || name.is_empty() {
        bail!("every object needs kind and metadata.name");
    }
    let wanted = format!("{kind}List");
    let lists = tape.lists();
    let found = lists.into_iter().find(|(_, list)| list["kind"] == wanted.as_str());
    let Some((path, mut list)) = found else {
        let known: Vec<String> =
            tape.lists().values().map(|l| text(&l["kind"]).replace("List", "")).collect();
        bail!(
            "{kind} {name}: the controller does not look at this kind (it does at {})",
            known.join(", ")
        );
    };
    let namespace = match text(&document["metadata"]["namespace"]) {
        "" if kind == "Pod" => "default",
        namespace => namespace,
    };
    let Some(items) = list["items"].as_array_mut() else { bail!("no list of {kind}") };
    let same = |item: &Value| {
        item["metadata"]["name"] == name && text(&item["metadata"]["namespace"]) == namespace
    };
    let place = items.iter().position(same);
    match (verb, place) {
        (Verb::Delete, Some(place)) => {
            items.remove(place);
        }
        (Verb::Delete, None) => bail!("{kind} {name} does not exist"),
        (Verb::Apply, Some(place)) => {
            if let Some(item) = items.get_mut(place) {
                merge(item, document);
            }
        }
        (Verb::Apply, None) => {
            let mut new = document.clone();
            let now =
                k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let meta = json!({"uid": format!("planned-{name}"), "creationTimestamp": now, "generation": 1});
            merge(&mut new["metadata"], &meta);
            if !namespace.is_empty() {
                new["metadata"]["namespace"] = json!(namespace);
            }
            items.push(new);
        }
    }
    tape.insert(&path, list);
    Ok(())
}

/// JSON merge patch (RFC 7386).
pub fn merge(target: &mut Value, change: &Value) {
    let Value::Object(fields) = change else {
        *target = change.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        match (value, target.as_object_mut()) {
            (Value::Null, Some(object)) => {
                object.remove(name);
            }
            (value, Some(object)) => {
                merge(object.entry(name.clone()).or_insert(Value::Null), value)
            }
            (_, None) => {}
        }
    }
}

/// Makes `store` equal to `then`; what would be read differently.
fn transition(store: &mut Store, then: &Store) -> Vec<(Read, Cause)> {
    let mut reads = Vec::new();
    for kind in Kind::ALL.iter().copied() {
        let gone: Vec<_> =
            store.keys(kind).filter(|key| !then.contains(kind, key)).cloned().collect();
        for key in gone {
            reads.extend(store.remove(kind, &key).into_iter().map(|r| (r, Cause::Deleted)));
        }
        for key in then.keys(kind) {
            if let Some(object) = then.stored(kind, key) {
                let changed = store.upsert(Arc::clone(object));
                reads.extend(changed.into_iter().map(|read| (read, Cause::Changed)));
            }
        }
    }
    reads
}

fn refused(now: &World, then: &World) -> Vec<String> {
    let new = then.refused.iter().filter(|(place, why)| now.refused.get(place) != Some(why));
    new.map(|((kind, key), why)| {
        let why: Vec<&str> = why.iter().map(|invalid| invalid.message.as_str()).collect();
        format!("{} {key}: {}", kind.name(), why.join("; "))
    })
    .collect()
}

fn described(session: &Session<'_>, planned: &Planned) -> String {
    let mut text = String::new();
    for (title, lines, tone) in [
        ("Refused", &planned.refused, Tone::Bad),
        ("Problems", &planned.problems, Tone::Bad),
        ("Pods", &planned.pods, Tone::Title),
        ("Owners that run again", &planned.owners, Tone::Title),
    ] {
        if !lines.is_empty() {
            text.push_str(&session.paint.tone(tone, title));
            text.push('\n');
            lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
        }
    }
    text.push_str(&describe(&planned.rows));
    let (rows, pods) = (count(planned.rows.len(), "row"), count(planned.pods.len(), "pod"));
    text + &format!("{rows} and {pods} would change; nothing was changed\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tape() -> Tape {
        let tape = Tape::default();
        let subnet = json!({"metadata": {"name": "s"}, "spec": {"cidrBlock": "10.0.0.0/24"}});
        tape.insert("/x/subnets", json!({"kind": "SubnetList", "items": [subnet]}));
        tape
    }

    #[test]
    fn objects_are_merged_added_and_removed() {
        let tape = tape();
        let change = |spec: Value, name: &str| json!({"kind": "Subnet", "metadata": {"name": name}, "spec": spec});
        overlay(&tape, &change(json!({"private": true}), "s"), Verb::Apply).expect("merge");
        overlay(&tape, &change(json!({"cidrBlock": "10.1.0.0/24"}), "t"), Verb::Apply)
            .expect("add");
        let list = tape.list("/x/subnets").expect("list");
        assert_eq!(list["items"][0]["spec"], json!({"cidrBlock": "10.0.0.0/24", "private": true}));
        assert_eq!(list["items"][1]["metadata"]["uid"], "planned-t");
        overlay(&tape, &change(json!({}), "s"), Verb::Delete).expect("delete");
        let left = tape.list("/x/subnets").expect("list");
        assert_eq!(left["items"].as_array().map(Vec::len), Some(1));
        assert!(overlay(&tape, &change(json!({}), "s"), Verb::Delete).is_err());
        let other = json!({"kind": "Widget", "metadata": {"name": "w"}});
        assert!(overlay(&tape, &other, Verb::Apply).is_err());
    }

    #[test]
    fn files_hold_documents_and_lists() {
        let text = "# c\n---\nkind: A\n---\nkind: List\nitems:\n- kind: B\n- kind: C\n";
        let kinds: Vec<String> = parse_documents(text)
            .expect("documents")
            .iter()
            .map(|d| d["kind"].as_str().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(kinds, ["A", "B", "C"]);
        assert!(parse_documents("# nothing\n").is_err());
    }
}
