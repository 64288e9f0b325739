//! `support-bundle`: what there is to know about a cluster in one archive, without secrets.
//!
//! It is a tape in a tar: `api/<path>.json` are lists of objects, `said/N.txt` answers of
//! commands, `said/index.json` the questions, `logs/` the ends of logs. Secrets are never asked
//! for; values of environment variables and arguments of others' containers are taken out.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use clap::{Arg, ArgMatches, Command};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use regex::Regex;
use serde_json::{Value, json};

use super::{
    Arguments, Session, Tool,
    cluster::{Cluster, Database, each, name, text},
    status,
    tape::{Said, Tape},
};

pub const TOOL: Tool = Tool {
    name: "support-bundle",
    aliases: &[],
    about: "Collect objects, databases, switch states and logs in one archive, secrets removed",
    example: "support-bundle\nsupport-bundle incident.tar.gz\nstatus --bundle incident.tar.gz",
    arguments: Arguments::Own,
    command: |command: Command| {
        command.arg(
            Arg::new("file").value_name("FILE").help("Archive to write (kube-ovn-support.tar.gz)"),
        )
    },
    run: |session, matches| Box::pin(run(session, matches)),
};

/// Lists that explain more than those that the commands ask for.
const MORE: &[&str] = &[
    "/api/v1/events",
    "/apis/kubeovn.io/v1/vips",
    "/apis/kubeovn.io/v1/vlans",
    "/apis/kubeovn.io/v1/provider-networks",
    "/apis/apps/v1/controllerrevisions",
];

/// Lines of each log.
const LINES: &str = "2000";

async fn run(session: &Session<'_>, matches: &ArgMatches) -> anyhow::Result<u8> {
    let default = "kube-ovn-support.tar.gz".to_owned();
    let file = PathBuf::from(matches.get_one::<String>("file").unwrap_or(&default));
    let live = session.cluster().await?;
    let tape = Arc::new(Tape::default());
    let cluster = live.recording(&tape);
    let mut missing = Vec::new();
    let mut note = |what: &str, result: anyhow::Result<()>| {
        if let Err(error) = result {
            eprintln!("kubectl ko: without {what}: {error:#}");
            missing.push(format!("{what}: {error:#}"));
        }
    };
    note("objects and the northbound database", objects(session, &cluster).await);
    note("the state of the components", status::observe(session, &cluster).await.map(|_| ()));
    for path in MORE {
        note(path, cluster.list(path, "").await.map(|_| ()));
    }
    note("the databases", databases(&cluster).await);
    note("the switches", switches(&cluster).await);
    let logs = logs(&cluster).await.unwrap_or_default();
    for (path, list) in tape.lists() {
        tape.insert(&path, redacted_list(list));
    }
    let archive = packed(&tape, &logs, &missing)?;
    super::database::write_private(&file, &archive)?;
    println!("{}: {} KB", file.display(), archive.len() / 1000);
    Ok(0)
}

async fn objects(session: &Session<'_>, cluster: &Cluster) -> anyhow::Result<()> {
    super::desired::world(cluster, session.engine).await?;
    super::desired::northbound(cluster, session.engine).await?;
    Ok(())
}

async fn databases(cluster: &Cluster) -> anyhow::Result<()> {
    for at in cluster.places("ovn-central", "ovn-central").await? {
        for database in Database::BOTH {
            let socket = database.control_socket();
            for rpc in ["cluster/status", "ovsdb-server/get-db-storage-status"] {
                cluster.ask(&at, &["ovs-appctl", "-t", &socket, rpc, database.schema()]).await?;
            }
        }
    }
    let at = cluster.leader(Database::Southbound).await?;
    cluster.ask(&at, &["ovn-sbctl", "show"]).await?;
    Ok(())
}

async fn switches(cluster: &Cluster) -> anyhow::Result<()> {
    for at in cluster.places("ovs", "openvswitch").await? {
        let columns = "--columns=name,ofport,error,external_ids";
        for command in [
            &["ovs-vsctl", "show"][..],
            &["ovs-vsctl", "--format=json", columns, "list", "Interface"],
            &["ovs-appctl", "dpif/show"],
            &["ovs-ofctl", "dump-flows", "br-int", "--no-stats"],
        ] {
            cluster.ask(&at, command).await?;
        }
    }
    for at in cluster.places("kube-ovn-cni", "cni-server").await? {
        for command in
            [&["ip", "-d", "address"][..], &["ip", "route"], &["ip", "rule"], &["ipset", "list"]]
        {
            cluster.ask(&at, command).await?;
        }
    }
    Ok(())
}

/// The ends of the logs of our pods, `pod/container.log`.
async fn logs(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for pod in cluster.system_pods("component=network").await? {
        for container in each(&pod["spec"]["containers"]) {
            let (pod, container) = (name(&pod), text(&container["name"]));
            let said = cluster.log(pod, container, LINES).await.unwrap_or_default();
            all.insert(format!("{pod}/{container}.log"), said);
        }
    }
    Ok(all)
}

/// Takes out what may be secret: last-applied copies, managed fields, and what containers of
/// others are started with.
pub fn redacted_list(mut list: Value) -> Value {
    if let Some(items) = list["items"].as_array_mut() {
        items.iter_mut().for_each(redact);
    }
    list
}

fn redact(object: &mut Value) {
    let ours = object["metadata"]["labels"]["component"] == "network"
        || text(&object["metadata"]["name"]).starts_with("kube-ovn")
        || text(&object["metadata"]["name"]).starts_with("ov");
    if let Some(meta) = object["metadata"].as_object_mut() {
        meta.remove("managedFields");
        if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    if object.get("data").is_some() {
        object["data"] = json!("removed");
    }
    if !ours {
        hide(object);
    }
}

/// In a pod, or in the template of one at any depth.
fn hide(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let container = fields.contains_key("image") && fields.contains_key("name");
            for (name, inner) in fields {
                match name.as_str() {
                    "env" | "envFrom" | "args" | "command" if container => *inner = json!([]),
                    _ => hide(inner),
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(hide),
        _ => {}
    }
}

/// Tokens and keys that found their way into a text.
pub fn redacted_text(text: &str) -> String {
    let patterns = [
        r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+",
        r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----",
        r"(?i)(bearer|password|passwd|token|secret)([=: ]+)[^\s,;]{6,}",
    ];
    patterns.iter().filter_map(|p| Regex::new(p).ok()).fold(text.to_owned(), |text, pattern| {
        pattern.replace_all(&text, "$1$2(removed)").into_owned()
    })
}

/// File names of paths: `/` becomes `~`.
fn file_of(path: &str) -> String {
    format!("api/{}.json", path.trim_start_matches('/').replace('/', "~"))
}

fn path_of(file: &str) -> Option<String> {
    let inner = file.strip_prefix("api/")?.strip_suffix(".json")?;
    Some(format!("/{}", inner.replace('~', "/")))
}

fn packed(
    tape: &Tape,
    logs: &BTreeMap<String, String>,
    missing: &[String],
) -> anyhow::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let mut put = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        archive.append_data(&mut header, format!("kube-ovn-support/{name}"), content)
    };
    for (path, list) in tape.lists() {
        put(&file_of(&path), serde_json::to_string_pretty(&list)?.as_bytes())?;
    }
    let mut index = Vec::new();
    for (n, (question, said)) in tape.all_said().into_iter().enumerate() {
        put(&format!("said/{n}.txt"), redacted_text(&said.stdout).as_bytes())?;
        let stderr = redacted_text(&said.stderr);
        index.push(json!({"question": question, "code": said.code, "stderr": stderr, "file": n}));
    }
    put("said/index.json", serde_json::to_string_pretty(&index)?.as_bytes())?;
    for (name, log) in logs {
        put(&format!("logs/{name}"), redacted_text(log).as_bytes())?;
    }
    put("missing.txt", missing.join("\n").as_bytes())?;
    let compressed = archive.into_inner().context("finish the archive")?;
    let mut all = compressed.finish().context("compress the archive")?;
    all.flush()?;
    Ok(all)
}

/// Most that one file of an archive may hold.
const LARGEST: u64 = 1 << 30;

/// Reads a bundle back.
pub fn read(file: &Path) -> anyhow::Result<Arc<Tape>> {
    let open = File::open(file).with_context(|| format!("open {}", file.display()))?;
    unpacked(open).with_context(|| format!("{} is no support bundle", file.display()))
}

fn unpacked(archive: impl Read) -> anyhow::Result<Arc<Tape>> {
    let mut archive = tar::Archive::new(GzDecoder::new(archive));
    let tape = Tape::default();
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for entry in archive.entries()? {
        let entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let Some(name) = path.strip_prefix("kube-ovn-support/").map(str::to_owned) else {
            continue;
        };
        let mut content = Vec::new();
        entry.take(LARGEST).read_to_end(&mut content)?;
        match path_of(&name) {
            Some(path) => tape.insert(&path, serde_json::from_slice(&content)?),
            None => {
                texts.insert(name, String::from_utf8_lossy(&content).into_owned());
            }
        }
    }
    let index = texts.get("said/index.json").context("it has no index")?;
    let index: Vec<Value> = serde_json::from_str(index)?;
    for said in &index {
        let Some(file) = said["file"].as_u64() else { bail!("malformed index") };
        let stdout = texts.get(&format!("said/{file}.txt")).cloned().unwrap_or_default();
        let code = said["code"].as_u64().and_then(|c| u8::try_from(c).ok()).unwrap_or(1);
        let stderr = text(&said["stderr"]).to_owned();
        tape.note(text(&said["question"]), Said { code, stdout, stderr });
    }
    Ok(Arc::new(tape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_reads_back() {
        let tape = Tape::default();
        tape.insert("/apis/kubeovn.io/v1/subnets", json!({"kind": "SubnetList", "items": []}));
        tape.note("pod ovs-vsctl show", Said { code: 0, stdout: "x".into(), stderr: "y".into() });
        let archive = packed(&tape, &BTreeMap::new(), &[]).expect("archive");
        let back = unpacked(&archive[..]).expect("tape");
        assert_eq!(back.lists(), tape.lists());
        assert_eq!(back.all_said(), tape.all_said());
        assert!(unpacked(&b"nonsense"[..]).is_err());
    }

    #[test]
    fn secrets_are_taken_out() {
        let pod = json!({"metadata": {"name": "web", "managedFields": [1],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x", "a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i", "args": ["--password=hunter2"],
                "env": [{"name": "TOKEN", "value": "hunter2"}]}]}});
        let list = redacted_list(json!({"items": [pod]})).to_string();
        assert!(!list.contains("hunter2") && !list.contains("last-applied"), "{list}");
        assert!(list.contains("\"a\":\"b\""));
        let text = "Authorization: Bearer abcdefghijkl password=hunter2hunter ok=1\n\
                    eyJhbGciOiJSUzI1NiIs.eyJpc3MiOiJrdWJl.c2lnbmF0dXJl\n\
                    -----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----";
        let clean = redacted_text(text);
        for secret in ["abcdefghijkl", "hunter2", "eyJ", "MIIE"] {
            assert!(!clean.contains(secret), "{secret}: {clean}");
        }
        assert!(clean.contains("ok=1"));
    }

    #[test]
    fn paths_and_files() {
        for path in ["/api/v1/pods", "/apis/kubeovn.io/v1/subnets"] {
            assert_eq!(path_of(&file_of(path)).as_deref(), Some(path));
        }
    }
}
