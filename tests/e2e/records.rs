//! Records of addresses that are edited while no controller runs, and a subnet that is refused:
//! neither changes what pods use.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    adoption::Stopped,
    audit::agreement,
    cluster::{retry, text},
    pods::{Pod, page_of},
    story::{Story, story},
};

/// The parts of a record that say whose address it is.
fn record(s: &Story, pod: &str) -> Result<Value, String> {
    let name = format!("{pod}.{}", s.ns);
    let object = s.cluster.kubectl(&["get", "ip", &name, "-o", "json"])?;
    let object: Value = serde_json::from_str(&object).map_err(|e| e.to_string())?;
    let spec = &object["spec"];
    let parts = ["podName", "namespace", "subnet", "v4IpAddress", "v6IpAddress", "macAddress"];
    Ok(parts.iter().map(|part| json!([part, text(&spec[*part])])).collect())
}

#[test]
fn records_edited_while_nobody_leads_are_put_right() {
    story("records", |s| {
        let nodes = s.cluster.nodes();
        let on = |name: &str, n: usize| Pod::new(name).on(&nodes[n % nodes.len()].name);
        let pods = ["a", "b", "c", "d"];
        s.start(&[on("a", 0), on("b", 1), on("c", 2), on("d", 0)]);
        let before: Vec<Value> = pods.iter().map(|pod| retry(30, || record(s, pod))).collect();
        let used: BTreeSet<String> = pods.iter().map(|pod| s.ip(pod)).collect();

        let range = s.cluster.by_family("10.16.250.0/24", "fd00:10:16::fa00/120");
        s.subnet("e2e-late", json!({"cidrBlock": range, "natOutgoing": true}));
        let message = s.wait_condition("e2e-late", "Ready", "False");
        assert!(message.contains("overlaps"), "{message}");
        s.step(&format!("refused: {message}"));

        let stopped = Stopped::stop(s.cluster);
        let patch = |pod: &str, body: Value| {
            let name = format!("{pod}.{}", s.ns);
            let body = body.to_string();
            s.cluster.kubectl(&["patch", "ip", &name, "--type=merge", "-p", &body]).expect("edit")
        };
        patch("a", json!({"spec": {"podName": "somebody-else"}}));
        let none = json!({"ipAddress": "", "v4IpAddress": "", "v6IpAddress": ""});
        patch("b", json!({ "spec": none }));
        patch("c", json!({"metadata": {"finalizers": null}}));
        s.cluster.kubectl(&["delete", "ip", &format!("c.{}", s.ns)]).expect("torn away");
        patch("d", json!({"spec": {"macAddress": "02:00:00:00:00:99"}}));
        s.create(&[on("0", 0), on("1", 1), on("2", 2)]);
        drop(stopped);
        s.step("records edited, three pods wait, the controller starts");
        s.wait_ready(&["0", "1", "2"]);
        for (pod, before) in pods.iter().zip(&before) {
            retry(90, || match record(s, pod)? {
                now if now == *before => Ok(()),
                now => Err(format!("the record of {pod} says {now}, not {before}")),
            });
        }
        s.wait_event_of_cluster(&format!("a.{}", s.ns), "RecordRestored", &["cannot be changed"]);
        for pod in ["0", "1", "2"] {
            assert!(!used.contains(&s.ip(pod)), "the address of {pod} is in use");
        }
        s.step("records are right again, new pods have other addresses");
        s.fetches("a", &page_of(&s.ip("b")), "b");
        s.fetches("0", &page_of(&s.ip("c")), "c");
        s.fetches("d", &page_of(&s.ip("1")), "1");
        let late = s.cluster.objects(&["subnet", "e2e-late"]).remove(0);
        assert_eq!(text(&late["status"]["lastValidSpec"]), "", "it was never in force");
        for node in &nodes {
            let sets = s.cluster.enter(&node.name, &["ipset", "save"]).expect("ipset save");
            let found = range.split(',').find(|cidr| sets.contains(*cidr));
            assert_eq!(found, None, "{} acts for the refused subnet", node.name);
        }
        retry(90, || agreement(s.cluster));
        s.step("nodes do nothing for the refused subnet; all agrees");
    });
}
