//! What others can see: who listens, sockets and files, secrets in logs and bundles.

use std::{collections::BTreeSet, fs, process::Command};

use serde_json::json;

use crate::{
    cluster::{Cluster, Node, is_ready, text},
    guard::undo,
    ko::good,
    pods::Pod,
    story::{Story, story},
};

/// Ports that the manual tells to open, and what they are for.
const PORTS: [(&str, u16); 9] = [
    ("northbound database", 6641),
    ("southbound database", 6642),
    ("raft of the northbound database", 6643),
    ("raft of the southbound database", 6644),
    ("Geneve", 6081),
    ("VXLAN", 4789),
    ("metrics of the controller", 10660),
    ("metrics of the monitor", 10661),
    ("metrics of the agent", 10665),
];

/// Address and port of every listener of our programs on a node.
fn listeners(cluster: &Cluster, node: &str) -> BTreeSet<(String, u16)> {
    let shown = cluster.enter(node, &["ss", "-Hltunp"]).expect("listeners");
    let ours = |line: &&str| ["\"ov", "\"kube-ovn", "\"start-"].iter().any(|w| line.contains(w));
    let local = |line: &str| {
        let (address, port) = line.split_whitespace().nth(4)?.rsplit_once(':')?;
        Some((address.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
    };
    shown.lines().filter(ours).filter_map(local).collect()
}

/// Only what was asked for, and on the node's own address.
fn only_known_ports(s: &Story, nodes: &[Node]) {
    for node in nodes {
        let found = listeners(s.cluster, &node.name);
        assert!(found.iter().any(|(_, port)| *port == 10665), "{}: {found:?}", node.name);
        for (address, port) in &found {
            let known = PORTS.iter().any(|(_, wanted)| wanted == port);
            assert!(known, "{}: nobody asked for {address} port {port}", node.name);
            let tunnel = [6081, 4789].contains(port);
            let everywhere = ["0.0.0.0", "*", "::"].contains(&address.as_str());
            assert!(tunnel || !everywhere, "{}: {port} on every address", node.name);
        }
    }
    s.step("only known ports, on the nodes' addresses");
}

/// Sockets, databases and the CNI configuration are the owner's alone.
fn private_files(s: &Story, nodes: &[Node]) {
    let look = "find /run/openvswitch /run/ovn -type s -perm /077
        find /etc/origin/ovn /etc/origin/openvswitch -type f -perm /077
        find /etc/cni/net.d -name '*kube-ovn*' -perm /077
        find / -xdev -path /proc -prune -o -name '*kube-ovn*' -type f -perm /022 -print 2>/dev/null";
    for node in nodes {
        let open = s.cluster.enter(&node.name, &["sh", "-c", look]).expect("a look at files");
        assert_eq!(open, "", "{}: open to others", node.name);
    }
    s.step("sockets and databases are private");
}

/// Tokens of our pods, the key of the databases: the texts that must not be found.
fn secrets(s: &Story) -> Vec<String> {
    let pods = s.cluster.objects(&["-n", "kube-system", "pods", "-l", "component=network"]);
    let mut all = Vec::new();
    for pod in pods.iter().filter(|pod| is_ready(pod)) {
        let name = text(&pod["metadata"]["name"]);
        let file = "/var/run/secrets/kubernetes.io/serviceaccount/token";
        let read = ["-n", "kube-system", "exec", &name, "--", "sh", "-c"];
        let command = format!("cat {file} 2>/dev/null || true");
        let token = s.cluster.kubectl(&[&read[..], &[&command]].concat()).unwrap_or_default();
        // The signature: the rest says who, and may be told.
        all.extend(token.trim().rsplit_once('.').map(|(_, signature)| signature.to_owned()));
    }
    assert!(all.len() >= 4, "tokens of {} pods only", all.len());
    all
}

#[track_caller]
fn holds_none(what: &str, said: &str, secrets: &[String]) {
    for secret in secrets {
        assert!(!said.contains(secret.as_str()), "{what} holds a secret");
    }
    for form in ["PRIVATE KEY-----", "eyJhbGciOi"] {
        assert!(!said.contains(form), "{what} holds {form}");
    }
}

fn quiet_logs(s: &Story, nodes: &[Node], secrets: &[String]) {
    for node in nodes {
        let read = "find /var/log/kube-ovn /var/log/ovn /var/log/openvswitch -type f -name '*.log' \
                    -exec cat {} +";
        let said = s.cluster.enter(&node.name, &["sh", "-c", read]).expect("logs");
        holds_none(&format!("a log of {}", node.name), &said, secrets);
    }
    let logs = ["-n", "kube-system", "logs", "-l", "component=network", "--all-containers"];
    let more = ["--tail=-1", "--max-log-requests=50", "--ignore-errors"];
    let said = s.cluster.kubectl(&[&logs[..], &more].concat()).expect("logs of the pods");
    holds_none("a container's log", &said, secrets);
    s.step("no token and no key in logs");
}

fn harmless_bundle(s: &Story, secrets: &[String]) {
    let folder = s.cluster.dir.join("e2e-exposure");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    let _gone = undo(|| drop(fs::remove_dir_all(&folder)));
    let file = folder.join("bundle.tar.gz").display().to_string();
    good(s.cluster, &["support-bundle", &file]);
    let mut unpack = Command::new("tar");
    let unpacked = unpack.arg("-C").arg(&folder).args(["-xzf", &file]).status();
    assert!(unpacked.expect("run tar").success());
    let mut all = String::new();
    let mut folders = vec![folder.clone()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("read").map(|entry| entry.expect("entry").path()) {
            match entry.is_dir() {
                true => folders.push(entry),
                false if entry.extension().is_some_and(|e| e == "gz") => {}
                false => all += &String::from_utf8_lossy(&fs::read(entry).expect("read")),
            }
        }
    }
    assert!(all.contains(&s.ns), "the bundle knows the story's pod");
    holds_none("the bundle", &all, secrets);
    s.step("none in a support bundle");
}

#[test]
fn nothing_listens_or_lies_open_that_was_not_asked_for() {
    story("exposure", |s| {
        let nodes = s.cluster.nodes();
        only_known_ports(s, &nodes);
        private_files(s, &nodes);
        let mut pod = Pod::new("whisperer").manifest(&s.ns);
        pod["spec"]["containers"][0]["env"] =
            json!([{"name": "PASSWORD", "value": "e2e-hunter-2-hunter"}]);
        s.cluster.apply(&[pod]);
        s.wait_ready(&["whisperer"]);
        let mut secrets = secrets(s);
        quiet_logs(s, &nodes, &secrets);
        secrets.push("e2e-hunter-2-hunter".to_owned());
        harmless_bundle(s, &secrets);
    });
}
