//! Every command that the manual prints, with its arguments, on a cluster.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::{
    cluster::{retry, text},
    ko::{at_last, good, ko},
    pods::Pod,
    story::{Story, story},
};

/// A folder that goes with the story.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn holds(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is not in:\n{said}");
    }
}

#[track_caller]
fn refused(s: &Story, args: &[&str], code: i32, word: &str) {
    let (ended, stdout, stderr) = ko(s.cluster, args);
    let said = format!("{stdout}{stderr}");
    assert_eq!((ended, said.contains(word)), (code, true), "ko {}: {said}", args.join(" "));
}

fn databases(s: &Story) {
    for database in ["nb", "sb"] {
        holds(&good(s.cluster, &[database, "status"]), &["Status: cluster member", "status: ok"]);
        let status = good(s.cluster, &[database, "status", "-o", "json"]);
        let status: Value = serde_json::from_str(&status).expect("JSON");
        let id = text(&status["servers"][0]["id"]);
        assert_eq!((text(&status["role"]).as_str(), id.len()), ("leader", 4), "{status}");
        refused(s, &[database, "kick", &id], 1, "one member only");
        holds(&good(s.cluster, &[database, "dbstatus"]), &["nb status: ok", "sb status: ok"]);
        let said = good(s.cluster, &[database, "backup"]);
        let file = Folder(PathBuf::from(said.trim().rsplit(' ').next().unwrap_or_default()));
        assert!(fs::read_to_string(&file.0).expect("the backup").starts_with("OVSDB JSON "));
        let _ = fs::remove_file(&file.0);
    }
    holds(&good(s.cluster, &["sb", "restore"]), &["refills the southbound"]);
    refused(s, &["nb", "kick"], 2, "SERVER_ID");
    s.step("databases: status, dbstatus, kick, backup");
}

/// All forms of 4.2 of the manual's tools chapter.
fn traces(s: &Story, node: &str, service: &str) {
    let (a, b) = (format!("{}/a", s.ns), s.ip("b"));
    let host = format!("{}/h", s.ns);
    let node = format!("node//{node}");
    let address = s.pod("b");
    let mac = text(&address["metadata"]["annotations"]["ovn.kubernetes.io/mac_address"]);
    let delivered = format!("verdict: delivered to \"b.{}\"", s.ns);
    for packet in [
        &[a.as_str(), &b, "icmp"][..],
        &[&a, &b, &mac, "icmp"],
        &[&a, &b, "tcp", "80"],
        &[&a, &b, &mac, "udp", "53"],
        &[&node, &b, "icmp"],
        &[&node, &b, "tcp", "80"],
        &[&host, &b, "icmp"],
    ] {
        let said = good(s.cluster, &[&["trace"], packet].concat());
        holds(&said, &[&delivered, "bridge(\"br-int\")"]);
        let said = good(s.cluster, &[&["ovn-trace"], packet].concat());
        assert!(said.contains(&delivered) && !said.contains("br-int"), "{packet:?}: {said}");
    }
    for packet in [
        &[a.as_str(), &b, "arp"][..],
        &[&a, &b, "arp", "request"],
        &[&a, &b, &mac, "arp", "reply"],
        &[&node, &b, "arp", "request"],
        &[&a, service, "udp", "53"],
    ] {
        holds(&good(s.cluster, &[&["trace"], packet].concat()), &["verdict: ", "br-int"]);
    }
    for (packet, word) in [
        (&[a.as_str()][..], "target address is missing"),
        (&[&a, &b], "protocol is missing"),
        (&[&a, &b, "tcp"], "needs a target port"),
        (&[&a, &b, "arp", "reply"], "needs the target MAC"),
        (&[&a, &b, "sctp"], "icmp, tcp, udp or arp"),
    ] {
        refused(s, &[&["trace"], packet].concat(), 2, word);
    }
    refused(s, &["trace", "nobody/nothing", &b, "icmp"], 1, "there is no pod");
    s.step("traces of every form");
}

fn captures(s: &Story) {
    let b = s.ip("b");
    let pod = format!("{}/a", s.ns);
    std::thread::scope(|scope| {
        let capture = ["tcpdump", &pod, "-c", "2", "icmp"];
        let cluster = s.cluster;
        let running = scope.spawn(move || good(cluster, &capture));
        retry(60, || {
            let _ = s.exec("a", &["ping", "-c", "1", "-W", "1", &b]);
            if running.is_finished() { Ok(()) } else { Err("tcpdump sees nothing".to_owned()) }
        });
        holds(&running.join().expect("the capture"), &["ICMP echo request", &b]);
    });
    refused(s, &["tcpdump", "nobody/nothing"], 1, "there is no pod");
    s.step("a capture");
}

/// Every port that was tried answered.
#[track_caller]
fn reaches(said: &str) {
    let tried: Vec<&str> = said.lines().filter(|line| line.contains(" connectivity to ")).collect();
    assert!(!tried.is_empty() && tried.iter().all(|l| l.contains(" success")), "{tried:#?}");
}

fn diagnoses(s: &Story, node: &str) {
    let said = good(s.cluster, &["diagnose", "all"]);
    let heads: Vec<String> =
        s.cluster.nodes().iter().map(|node| format!("### node {}", node.name)).collect();
    holds(&said, &heads.iter().map(String::as_str).collect::<Vec<_>>());
    let basics = [
        "custom resources: 20 of 20 ok",
        "service account ovn: ok",
        "kube-proxy ready",
        "kube-ovn-cni ready: 3/3",
        "ovn-nb leader check ok",
        "ovn-northd leader check ok",
        "status: ok",
    ];
    let probes = ["ovs-vswitchd are up", "ovn-controller is up", "connect to apiserver success"];
    holds(&said, &basics);
    holds(&said, &probes);
    reaches(&said);
    let said = good(s.cluster, &["diagnose", "node", node]);
    holds(&said, &[&format!("### node {node}")]);
    holds(&said, &probes);
    let said = good(s.cluster, &["diagnose", "subnet", "ovn-default"]);
    holds(&said, &["TCP connectivity to pod ovn-default-conn-check-server"]);
    // Agents answer such probes with enable-verbose-conn-check only.
    let pods: Vec<&str> = said.lines().filter(|line| !line.contains("to node ")).collect();
    reaches(&pods.join("\n"));
    let target = format!("tcp-{}-80", s.ip("b"));
    reaches(&good(s.cluster, &["diagnose", "IPPorts", &target]));
    refused(s, &["diagnose", "node"], 2, "the name of a node");
    refused(s, &["diagnose", "node", "nowhere"], 1, "no pinger runs on node nowhere");
    refused(s, &["diagnose", "subnet", "nowhere"], 1, "there is no subnet");
    refused(s, &["diagnose", "everything"], 2, "invalid value");
    for what in ["daemonset/ovn-default-conn-check-server", "service/test-node-port"] {
        let left = s.cluster.kubectl(&["-n", "kube-system", "get", what, "--ignore-not-found"]);
        assert_eq!(left.unwrap(), "", "{what} is left behind");
    }
    s.step("diagnoses");
}

fn logs(s: &Story) {
    let folder = Folder(s.cluster.dir.join("kubectl-ko-log"));
    holds(&good(s.cluster, &["log", "all"]), &["Collecting ovn logging files", "kubectl-ko-log"]);
    for node in s.cluster.nodes() {
        for file in [
            "kube-ovn/kube-ovn-cni.log",
            "ovn/ovn-controller.log",
            "openvswitch/ovs-vswitchd.log",
            "linux/route.log",
            "linux/iptables-nft.log",
            "linux/addr.log",
        ] {
            let path = folder.0.join(&node.name).join(file);
            let size = fs::metadata(&path).map(|meta| meta.len()).unwrap_or_default();
            assert!(size > 0, "{} is missing or empty", path.display());
        }
    }
    refused(s, &["log", "weather"], 2, "invalid value");
    s.step("logs of all nodes");
}

fn measures(s: &Story) {
    let said = good(s.cluster, &["perf", "--seconds", "1", "--sizes", "1k"]);
    let rows: Vec<&str> = said.lines().filter(|line| line.starts_with("1k ")).collect();
    assert_eq!(rows.len(), 3, "pods, hosts, a Service: {said}");
    for row in &rows {
        // Size, and five cells of a number with its unit but for the lost share.
        assert_eq!(row.split_whitespace().count(), 10, "a blank cell: {row}");
        s.step(row);
    }
    let left = ["-n", "kube-system", "get", "pods,services", "-l", "app=PerfTest", "-o", "name"];
    assert_eq!(s.cluster.kubectl(&left).unwrap(), "", "left behind");
}

/// Who decides over a packet, before and after a policy.
fn explains(s: &Story) {
    let (a, b) = (format!("{}/a", s.ns), format!("{}/b", s.ns));
    let question = ["explain", "--from", &a, "--to", &b, "--port", "tcp/80"];
    let allowed = good(s.cluster, &question);
    assert!(allowed.contains(&format!("delivered to \"b.{}\"", s.ns)), "{allowed}");
    s.cluster.apply(&[json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "nobody", "namespace": s.ns},
        "spec": {"podSelector": {"matchLabels": {"app": "b"}}, "policyTypes": ["Ingress"]}})]);
    let maker = format!("NetworkPolicy {}/nobody", s.ns);
    let json = [&question[..], &["-o", "json"]].concat();
    retry(90, || {
        let (code, said, error) = ko(s.cluster, &json);
        let found: Value =
            serde_json::from_str(&said).map_err(|e| format!("{code} {error}: {e}"))?;
        let rules = found["rules"].as_array().cloned().unwrap_or_default();
        let last = rules.iter().rfind(|rule| rule["decides"] == true).cloned().unwrap_or_default();
        let named = last["madeBy"].to_string().contains(&maker) && last["action"] == "drop";
        let arrives = text(&found["verdict"]).contains("delivered");
        if named && !arrives { Ok(()) } else { Err(said) }
    });
    s.kubectl(&["delete", "networkpolicy", "nobody"]).expect("the policy goes");
    refused(s, &["explain", "--from", &a, "--to", &b, "--port", "sctp/1"], 2, "write tcp/80");
    s.step("which policy decides");
}

#[test]
fn every_command_of_the_manual_answers() {
    story("ko-commands", |s| {
        let nodes = s.cluster.nodes();
        s.start(&[
            Pod::new("a").on(&nodes[0].name),
            Pod::new("b").on(&nodes[1].name),
            Pod::new("h").on(&nodes[1].name).in_host_network(8098),
        ]);
        let b = s.ip("b");
        s.pings("a", &b);
        at_last(s.cluster, &["status", "--wait=60"]);
        databases(s);
        let dns = s.cluster.objects(&["-n", "kube-system", "service", "kube-dns"]).remove(0);
        traces(s, &nodes[0].name, &text(&dns["spec"]["clusterIP"]));
        captures(s);
        explains(s);
        let said = good(s.cluster, &["env-check"]);
        for node in &nodes {
            holds(&said, &[&format!("----- node {} -----", node.name)]);
        }
        logs(s);
        diagnoses(s, &nodes[1].name);
        measures(s);
        refused(s, &["tuning"], 1, "gone since v1.14");
        refused(s, &["nosuch"], 2, "unrecognized subcommand");
    });
}
