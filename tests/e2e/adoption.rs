//! Take-over from upstream: the northbound database as its controller leaves it, pods that talk all
//! the time, and then our controller.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    audit::agreement,
    cluster::{Cluster, ovs_rows, retry, text},
    echoes::Echoes,
    ko::{at_last, good, ko},
    pods::Pod,
    story::story,
};

const CONTROLLER: [&str; 3] = ["-n", "kube-system", "deployment/kube-ovn-controller"];

/// Runs the controller again whatever happens.
pub struct Stopped<'a> {
    cluster: &'a Cluster,
    replicas: String,
}

impl<'a> Stopped<'a> {
    pub fn stop(cluster: &'a Cluster) -> Self {
        let deployment =
            cluster.objects(&["-n", "kube-system", "deployment", "kube-ovn-controller"]).remove(0);
        let stopped = Stopped { cluster, replicas: deployment["spec"]["replicas"].to_string() };
        stopped.scale("0").expect("stop the controller");
        retry(90, || {
            let label = ["-n", "kube-system", "pods", "-l", "app=kube-ovn-controller"];
            match cluster.objects(&label).len() {
                0 => Ok(()),
                left => Err(format!("{left} controllers run")),
            }
        });
        stopped
    }

    fn scale(&self, replicas: &str) -> Result<String, String> {
        let [n, ns, what] = CONTROLLER;
        self.cluster.kubectl(&[n, ns, "scale", what, &format!("--replicas={replicas}")])
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        let _ = self.scale(&self.replicas);
    }
}

/// Name -> UUID of the rows that the traffic of pods hangs on.
fn rows(cluster: &Cluster) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for table in [
        "Logical_Switch",
        "Logical_Switch_Port",
        "Logical_Router",
        "Logical_Router_Port",
        "Port_Group",
    ] {
        let list = ["--format=json", "--columns=_uuid,name", "list", table];
        for row in ovs_rows(&cluster.nbctl(&list).expect("list rows")) {
            all.insert(format!("{table} {}", text(&row["name"])), text(&row["_uuid"][1]));
        }
    }
    all
}

fn transact(cluster: &Cluster, operations: Vec<Value>) {
    let mut parameters = vec![json!("OVN_Northbound")];
    parameters.extend(operations);
    let parameters = Value::Array(parameters).to_string();
    let command = ["ovsdb-client", "transact", "unix:/var/run/ovn/ovnnb_db.sock", &parameters];
    let said = cluster.exec_system("app=ovn-central,ovn-nb-leader=true", None, &command);
    let said = said.expect("a transaction of upstream");
    assert!(!said.contains("\"error\""), "{said}");
}

/// Takes away every mark of ours, and adds what only upstream writes.
fn becomes_upstreams(cluster: &Cluster) {
    let tables = [
        "Logical_Switch",
        "Logical_Switch_Port",
        "Logical_Router",
        "Logical_Router_Port",
        "Logical_Router_Policy",
        "Logical_Router_Static_Route",
        "Port_Group",
        "Address_Set",
        "ACL",
        "NAT",
        "DHCP_Options",
        "Load_Balancer",
    ];
    let marks = json!(["set", ["kube-ovn/id", "kube-ovn/epoch"]]);
    let strip = |table: &&str| {
        json!({"op": "mutate", "table": table, "where": [],
            "mutations": [["external_ids", "delete", marks]]})
    };
    let mut operations: Vec<Value> = tables.iter().chain([&"NB_Global"]).map(strip).collect();
    operations.push(json!({"op": "insert", "table": "Load_Balancer", "uuid-name": "shared",
        "row": {"name": "cluster-tcp-loadbalancer", "protocol": "tcp",
                "vips": ["map", [["192.0.2.77:80", "192.0.2.78:80"]]]}}));
    operations.push(json!({"op": "mutate", "table": "Logical_Switch",
        "where": [["name", "==", "ovn-default"]],
        "mutations": [["load_balancer", "insert", ["named-uuid", "shared"]]]}));
    operations.push(json!({"op": "insert", "table": "Port_Group", "row": {
        "name": "ovn.default.node1", "external_ids": ["map", [["vendor", "kube-ovn"],
            ["subnet", "ovn-default"], ["node", "node1"], ["np", "ovn-default/node1"]]]}}));
    operations.push(json!({"op": "insert", "table": "Load_Balancer", "row": {
        "name": "e2e-by-hand", "vips": ["map", [["192.0.2.79:80", "192.0.2.78:80"]]]}}));
    transact(cluster, operations);
}

#[test]
fn a_database_of_upstream_is_taken_over_while_pods_talk() {
    story("adoption", |s| {
        let (cluster, nodes) = (s.cluster, s.cluster.nodes());
        s.start(&[Pod::new("a").on(&nodes[0].name), Pod::new("b").on(&nodes[1].name)]);
        let target = s.ip("b");
        s.pings("a", &target);
        retry(90, || agreement(cluster));
        let echoes = Echoes::start(s, "a", &target, 50);
        let before = rows(cluster);
        let stopped = Stopped::stop(cluster);
        becomes_upstreams(cluster);
        s.step("no controller, and a database that upstream could have written");

        let (code, plan, error) = ko(cluster, &["adopt", "--plan", "-o", "json"]);
        assert_eq!(code, 3, "{error}");
        let plan: Value = serde_json::from_str(&plan).expect("JSON");
        let names = |group: &str| -> Vec<String> {
            let lines = plan[group].as_array().cloned().unwrap_or_default();
            lines.iter().map(|line| text(&line["name"])).collect()
        };
        for name in ["ovn-default", "ovn-cluster", "join", &format!("a.{}", s.ns)] {
            assert!(names("claimed").contains(&name.to_owned()), "{name}: {plan:#}");
        }
        assert!(!names("replaced").is_empty(), "policies and routes: {plan:#}");
        let orphans = ["cluster-tcp-loadbalancer", "ovn.default.node1"];
        for name in orphans {
            assert!(names("removed").contains(&name.to_owned()), "{name}: {plan:#}");
        }
        assert!(names("left").contains(&"e2e-by-hand".to_owned()), "{plan:#}");
        let (code, _, error) = ko(cluster, &["adopt", "--apply"]);
        assert_eq!((code, error.contains("not taken over yet")), (1, true), "{error}");
        s.step("the plan; nothing is removed before the take-over");

        drop(stopped);
        retry(90, || cluster.settled_metric("kube_ovn_rows"));
        at_last(cluster, &["adopt", "--apply"]);
        let said = good(cluster, &["adopt", "--plan"]);
        assert!(said.contains("0 to claim, 0 to replace, 0 to remove, "), "{said}");
        s.step("taken over, orphans removed");

        let mut after = rows(cluster);
        after.retain(|name, _| before.contains_key(name));
        assert_eq!(after, before, "no port, switch, router or group was made anew");
        let kept = cluster.nbctl(&["--if-exists", "lb-del", "e2e-by-hand"]);
        kept.expect("remove what was made by hand");
        retry(90, || agreement(cluster));
        assert!(at_last(cluster, &["audit"]).ends_with("0 differences\n"));
        let report = echoes.end();
        s.step(&report.told());
        // A moment without policies would cost seconds; a busy machine may cost an echo.
        assert!(report.permille() <= 5 && report.sent > 100, "{report:?}");
    });
}
