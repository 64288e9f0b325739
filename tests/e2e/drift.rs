//! The northbound database is ours: what somebody else removes comes back, what somebody else made
//! stays, and a restart changes nothing.

use crate::{
    audit::agreement,
    cluster::{Cluster, retry},
    pods::Pod,
    story::{Story, story},
};

/// Rows of all kinds that the tests take away, as text that is the same after repair.
fn picture(cluster: &Cluster) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    for (table, columns) in [
        ("Logical_Switch", "name"),
        ("Logical_Switch_Port", "name,addresses,type"),
        ("Logical_Router_Port", "name,networks"),
        ("Logical_Router_Policy", "priority,match,action,nexthops"),
        ("Logical_Router_Static_Route", "ip_prefix,nexthop"),
        ("Port_Group", "name"),
    ] {
        let columns = format!("--columns={columns}");
        let rows = cluster.nbctl(&["--format=csv", "--no-headings", &columns, "list", table])?;
        lines.extend(rows.lines().map(|row| format!("{table}: {row}")));
    }
    lines.sort();
    Ok(lines)
}

fn heals(s: &Story, what: &str, before: &[String], command: &[&str]) {
    s.cluster.nbctl(command).unwrap_or_else(|e| panic!("{what}: {e}"));
    retry(30, || {
        let now = picture(s.cluster)?;
        let missing: Vec<&String> = before.iter().filter(|row| !now.contains(row)).collect();
        let extra: Vec<&String> = now.iter().filter(|row| !before.contains(row)).collect();
        if missing.is_empty() && extra.is_empty() {
            Ok(())
        } else {
            Err(format!("after {command:?} missing {missing:?}, extra {extra:?}"))
        }
    });
    s.step(&format!("{what}: healed"));
}

#[test]
fn rows_that_somebody_deletes_come_back() {
    story("drift", |s| {
        let nodes = s.cluster.nodes();
        s.start(&[Pod::new("a").on(&nodes[0].name), Pod::new("b").on(&nodes[1].name)]);
        let target = s.ip("b");
        s.pings("a", &target);
        retry(60, || s.cluster.settled_metric("kube_ovn_rows"));
        let before = picture(s.cluster).unwrap();
        let drift = s.cluster.settled_metric("kube_ovn_drift").unwrap();
        heals(s, "a pod's port", &before, &["lsp-del", &format!("b.{}", s.ns)]);
        s.pings("a", &target);
        heals(s, "all policies of the router", &before, &["lr-policy-del", "ovn-cluster"]);
        let changed = ["set", "Logical_Switch_Port", &format!("b.{}", s.ns), "addresses=unknown"];
        heals(s, "a changed column", &before, &changed);
        heals(s, "the switch of all pods", &before, &["ls-del", "ovn-default"]);
        s.pings("a", &target);
        heals(s, "the join switch", &before, &["ls-del", "join"]);
        s.pings("a", &nodes[1].ip);
        let counted = retry(20, || s.cluster.settled_metric("kube_ovn_drift"));
        assert!(counted > drift, "drift is counted: {drift} before, {counted} after");
        retry(30, || agreement(s.cluster));
        s.step("all agrees");
    });
}

#[test]
fn rows_of_others_stay() {
    story("foreign", |s| {
        let nbctl = |args: &[&str]| s.cluster.nbctl(args).unwrap();
        nbctl(&["ls-add", "e2e-foreign", "--", "lsp-add", "e2e-foreign", "e2e-foreign-port"]);
        nbctl(&["lr-policy-add", "ovn-cluster", "7", "ip4.src == 192.0.2.1", "drop"]);
        nbctl(&["lsp-add", "ovn-default", "e2e-guest"]);
        s.start(&[Pod::new("a")]);
        restart_controller(s.cluster);
        s.step("controller restarted");
        s.start(&[Pod::new("b")]);
        let kept = nbctl(&["show"]) + &nbctl(&["lr-policy-list", "ovn-cluster"]);
        nbctl(&["ls-del", "e2e-foreign", "--", "lsp-del", "e2e-guest"]);
        nbctl(&["lr-policy-del", "ovn-cluster", "7"]);
        for name in ["e2e-foreign-port", "e2e-guest", "192.0.2.1"] {
            assert!(kept.contains(name), "{name} is gone:\n{kept}");
        }
    });
}

/// Kills the leader's process and waits until its successor leads and is settled.
fn restart_controller(cluster: &Cluster) {
    let leader = cluster.leader();
    let started = |pod: &str| {
        cluster.kubectl(&[
            "-n",
            "kube-system",
            "get",
            "pod",
            pod,
            "-o",
            "jsonpath={.status.containerStatuses[0].state.running.startedAt}",
        ])
    };
    let before = started(&leader).expect("the leader runs");
    let pod = cluster.objects(&["-n", "kube-system", "pod", &leader]).remove(0);
    let node = pod["spec"]["nodeName"].as_str().unwrap();
    crate::churn::kill(cluster, node, "start-controller").expect("kill the controller");
    retry(60, || {
        let now = started(&cluster.leader())?;
        if now.is_empty() || now == before { Err("not restarted yet".to_owned()) } else { Ok(()) }
    });
    retry(60, || cluster.settled_metric("kube_ovn_rows"));
}

#[test]
fn restarted_controller_writes_nothing() {
    story("restart", |s| {
        s.start(&[Pod::new("a"), Pod::new("b")]);
        retry(60, || s.cluster.settled_metric("kube_ovn_rows"));
        let before = picture(s.cluster).unwrap();
        restart_controller(s.cluster);
        s.step("restarted and settled");
        let operations = s.cluster.settled_metric("kube_ovn_operations").unwrap();
        assert_eq!(operations, 0.0, "northbound operations after a restart");
        assert_eq!(picture(s.cluster).unwrap(), before);
        let target = s.ip("b");
        s.pings("a", &target);
    });
}
