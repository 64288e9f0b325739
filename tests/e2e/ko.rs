//! An operator looks at the cluster, and at a pod, with `kubectl ko` and a kubeconfig alone.

use std::process::Command;

use serde_json::Value;

use crate::{
    cluster::{Cluster, retry},
    pods::Pod,
    story::story,
};

/// `kubectl-ko` on this machine, as install.sh put it there: exit code, output, errors.
pub fn ko(cluster: &Cluster, args: &[&str]) -> (i32, String, String) {
    let output = Command::new(cluster.dir.join("bin/kubectl-ko"))
        .env("KUBECONFIG", cluster.dir.join("kubeconfig"))
        .current_dir(&cluster.dir)
        .args(args)
        .output()
        .expect("run kubectl-ko");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// It must end well.
#[track_caller]
pub fn good(cluster: &Cluster, args: &[&str]) -> String {
    let (code, stdout, stderr) = ko(cluster, args);
    assert_eq!(code, 0, "ko {}: {stdout}{stderr}", args.join(" "));
    stdout
}

/// As [`good`], once the cluster has come to rest.
pub fn at_last(cluster: &Cluster, args: &[&str]) -> String {
    retry(60, || match ko(cluster, args) {
        (0, stdout, _) => Ok(stdout),
        (code, stdout, stderr) => Err(format!("ko {}: {code}: {stdout}{stderr}", args.join(" "))),
    })
}

#[test]
fn an_operator_looks_around() {
    story("ko", |s| {
        let (cluster, nodes) = (s.cluster, s.cluster.nodes());
        s.start(&[Pod::new("a").on(&nodes[0].name), Pod::new("b").on(&nodes[1].name)]);
        let (a, b) = (format!("{}/a", s.ns), s.ip("b"));
        let port = format!("a.{}", s.ns);

        assert!(good(cluster, &["nbctl", "show", "ovn-default"]).contains(&port));
        assert!(good(cluster, &["vsctl", &nodes[0].name, "list-br"]).contains("br-int"));
        let (code, _, error) = ko(cluster, &["nbctl", "lsp-get-type", "nosuch"]);
        assert_eq!(code, 1, "the program's own code: {error}");
        let (code, _, error) = ko(cluster, &["vsctl", "nosuch", "show"]);
        assert_eq!((code, error.contains("no node \"nosuch\"")), (1, true), "{error}");
        assert!(good(cluster, &["nb", "status"]).contains("status: ok"));
        s.step("programs of OVN and Open vSwitch, in their pods");

        let trace = good(cluster, &["trace", &a, &b, "tcp", "80"]);
        assert!(trace.ends_with(&format!("verdict: delivered to \"b.{}\"\n", s.ns)), "{trace}");
        assert!(trace.contains("bridge(\"br-int\")"), "the switch of the node: {trace}");
        let drawn = good(cluster, &["trace", "--drawn", &a, "10.96.0.1", "tcp", "443"]);
        assert!(drawn.contains("[ ovn-cluster ]"), "{drawn}");
        s.step("traces through the logical network and the switch");

        at_last(cluster, &["status", "--wait=60"]);
        let status: Value =
            serde_json::from_str(&at_last(cluster, &["status", "-o", "json"])).expect("JSON");
        assert_eq!(status["healthy"], true, "{status}");
        assert!(at_last(cluster, &["audit"]).ends_with("0 differences\n"));
        assert!(at_last(cluster, &["ipam", "check"]).ends_with("0 contradictions\n"));
        let explained = good(cluster, &["explain", &port]);
        assert!(explained.contains(&format!("feature pod for Pod {a}")), "{explained}");
        s.step("status, audit, addresses, the reason of a port");

        // The plan of a change says what it would touch, and changes nothing.
        let plan = cluster.dir.join("plan.yaml");
        let subnet = "apiVersion: kubeovn.io/v1\nkind: Subnet\nmetadata: {name: e2e-ko-plan}\n\
                      spec: {cidrBlock: 10.77.0.0/24, private: true}\n";
        std::fs::write(&plan, subnet).expect("plan.yaml");
        let planned = good(cluster, &["plan", "-f", &plan.display().to_string()]);
        assert!(planned.contains("+ Logical_Switch e2e-ko-plan"), "{planned}");
        assert!(s.cluster.kubectl(&["get", "subnet", "e2e-ko-plan"]).is_err());
        let _ = std::fs::remove_file(&plan);

        let bundle = cluster.dir.join("bundle.tar.gz").display().to_string();
        good(cluster, &["support-bundle", &bundle]);
        assert!(good(cluster, &["audit", "--bundle", &bundle]).ends_with("0 differences\n"));
        good(cluster, &["ipam", "check", "--bundle", &bundle]);
        let tree = good(cluster, &["topology", "--bundle", &bundle]);
        assert!(tree.contains(&format!("{a}@{}", nodes[0].name)), "{tree}");
        let _ = std::fs::remove_file(&bundle);
        s.step("a plan, and a bundle read without the cluster");

        let pods = format!("{a},{}/b", s.ns);
        let outside = format!("icmp-{}", cluster.outside());
        let all = ["connectivity", "--pods", &pods, "--outside", &outside, "-o", "json"];
        let probes: Value = serde_json::from_str(&at_last(cluster, &all)).expect("JSON");
        assert!(probes.as_array().is_some_and(|all| all.len() > 20), "{probes}");
        s.step("connectivity from pods and nodes");

        let said = good(cluster, &["nb", "backup"]);
        let file = said.trim().rsplit(' ').next().unwrap_or_default().to_owned();
        let content = std::fs::read_to_string(&file).expect("the backup");
        assert!(content.starts_with("OVSDB JSON ") && content.contains(&port), "{said}");
        let _ = std::fs::remove_file(file);
        s.step("a backup");
    });
}
