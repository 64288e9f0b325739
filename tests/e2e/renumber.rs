//! Chapters 6.5 and 6.6 of the manual: subnets move to another range.

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    cluster::{is_ready, retry, text},
    guard::undo,
    ko::at_last,
    pods::Pod,
    story::{Story, story},
};

const SUBNET: &str = "test-subnet";

/// 6.5.2 as printed, but for the name of the namespace.
const REBUILD: &str = r#"
for pod in $(kubectl get pod --no-headers -n "$ns" --field-selector spec.restartPolicy=Always -o custom-columns=NAME:.metadata.name,HOST:spec.hostNetwork |
awk '{if ($2!="true") print $1}'); do
    kubectl delete pod "$pod" -n "$ns" --ignore-not-found
done
"#;

fn workload(s: &Story, kind: &str, name: &str, replicas: u32) -> Value {
    let mut object = json!({"apiVersion": "apps/v1", "kind": kind,
        "metadata": {"name": name, "namespace": s.ns},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                    "name": "web", "image": "kube-ovn-sandbox/test:1", "imagePullPolicy": "Never",
                    "command": ["/bin/sh", "-c", "exec httpd -f -p 80 -h /www"]}]}}}});
    if kind == "StatefulSet" {
        object["spec"]["serviceName"] = name.into();
    }
    object
}

/// Addresses of all pods of the namespace, when so many are ready and all in the range.
fn addresses(s: &Story, pods: usize, range: &str) -> Vec<String> {
    retry(90, || {
        let all = s.cluster.objects(&["-n", &s.ns, "pods"]);
        let ready: Vec<String> =
            all.iter().filter(|p| is_ready(p)).map(|p| text(&p["status"]["podIP"])).collect();
        let inside = ready.iter().all(|ip| ip.starts_with(range));
        if all.len() == pods && ready.len() == pods && inside {
            Ok(ready)
        } else {
            Err(format!("{pods} ready pods in {range} wanted of {}: {ready:?}", all.len()))
        }
    })
}

#[test]
fn a_subnet_with_pods_moves_to_another_range() {
    story("manual-6-5", |s| {
        s.subnet(
            SUBNET,
            json!({"cidrBlock": "10.66.0.0/24", "gateway": "10.66.0.1",
            "excludeIps": ["10.66.0.1"], "namespaces": [s.ns]}),
        );
        s.wait_condition(SUBNET, "Ready", "True");
        s.cluster
            .apply(&[workload(s, "Deployment", "web", 2), workload(s, "StatefulSet", "db", 1)]);
        addresses(s, 3, "10.66.0.");
        s.step("three pods in 10.66.0.0/24");
        let edit = json!({"spec": {"cidrBlock": "10.67.0.0/24", "gateway": "10.67.0.1",
            "excludeIps": ["10.67.0.1"]}});
        s.cluster
            .kubectl(&["patch", "subnet", SUBNET, "--type=merge", "-p", &edit.to_string()])
            .expect("6.5.1: the edit is taken");
        let message = s.wait_condition(SUBNET, "Ready", "False");
        assert!(message.contains(&format!("db-0.{}", s.ns)), "{message}");
        s.step(&format!("6.5.1: held back: {message}"));
        assert!(at_last(s.cluster, &["audit"]).ends_with("0 differences\n"));
        s.step("what is held back is no difference");
        // One pod is replaced: the next one does not hold the subnet back.
        s.delete_pods(&["db-0"]);
        s.wait_event("db-0", "AcquireAddressFailed", &["moves from 10.66.0.0/24 to 10.67.0.0/24"]);
        s.step("a pod that is replaced waits");
        let status = s
            .cluster
            .shell(Command::new("sh").arg("-c").arg(REBUILD).env("ns", &s.ns))
            .expect("6.5.2: the pods are deleted");
        s.step(&format!("6.5.2: {}", status.trim().replace('\n', "; ")));
        let given = addresses(s, 3, "10.67.0.");
        s.wait_condition(SUBNET, "Ready", "True");
        s.step(&format!("all are ready in the new range: {}", given.join(" ")));
        s.start(&[Pod::new("x").with("logical_switch", "ovn-default")]);
        for ip in &given {
            s.pings("x", ip);
        }
        let status = s.cluster.objects(&["subnet", SUBNET]).remove(0)["status"].clone();
        assert_eq!(status["v4usingIPs"], 3, "{status}");
    });
}

/// Join addresses of all nodes: the annotation, once the record, ovn0 and the ranges agree.
fn join_addresses(s: &Story, ranges: &str) -> Vec<(String, String)> {
    retry(90, || {
        s.cluster
            .objects(&["nodes"])
            .iter()
            .map(|node| {
                let name = text(&node["metadata"]["name"]);
                let ip = text(&node["metadata"]["annotations"]["ovn.kubernetes.io/ip_address"]);
                let record = s.cluster.objects(&["ips.kubeovn.io", &format!("node-{name}")]);
                let recorded = text(&record[0]["spec"]["ipAddress"]);
                let link =
                    s.cluster.enter(&name, &["ip", "-o", "address", "show", "dev", "ovn0"])?;
                let shown = ip.split(',').all(|ip| link.contains(&format!(" {ip}/")));
                let moved = ip.split(',').zip(ranges.split(',')).all(|(ip, r)| ip.starts_with(r));
                if moved && ip == recorded && shown {
                    Ok((name, ip))
                } else {
                    Err(format!("{name}: annotation {ip}, record {recorded}, ovn0 {link}"))
                }
            })
            .collect::<Result<Vec<_>, String>>()
    })
}

#[test]
fn nodes_follow_their_join_subnet() {
    story("join-range", |s| {
        let nodes = s.cluster.nodes();
        let pods: Vec<Pod> =
            (0..2).map(|n| Pod::new(&format!("p{n}")).on(&nodes[n].name)).collect();
        s.start(&pods);
        let ip = s.ip("p1");
        let old = s.cluster.objects(&["subnet", "join"]).remove(0)["spec"].clone();
        let range = |spec: &Value| {
            let text = json!({"spec": {"cidrBlock": spec["cidrBlock"], "gateway": spec["gateway"],
                "excludeIps": spec["excludeIps"]}})
            .to_string();
            s.cluster.kubectl(&["patch", "subnet", "join", "--type=merge", "-p", &text])
        };
        let restored = undo(|| {
            range(&old).expect("the old range of the join subnet");
            join_addresses(s, &s.cluster.by_family("100.64.", "fd00:100:64:"));
        });
        let gateway = s.cluster.by_family("100.51.0.1", "fd00:100:51::1");
        let excluded: Vec<&str> = gateway.split(',').collect();
        range(&json!({"cidrBlock": s.cluster.by_family("100.51.0.0/16", "fd00:100:51::/112"),
            "gateway": gateway, "excludeIps": excluded}))
        .expect("another range");
        let given = join_addresses(s, &s.cluster.by_family("100.51.", "fd00:100:51:"));
        s.wait_condition("join", "Ready", "True");
        s.step(&format!("join addresses, records and ovn0 of all nodes: {given:?}"));
        let ping = ["ping", "-c", "1", "-W", "1", &ip];
        for node in &nodes {
            retry(90, || s.cluster.enter(&node.name, &ping));
        }
        s.step("every node reaches a pod");
        for node in &nodes {
            s.pings("p0", &node.ip);
        }
        s.pings("p0", s.cluster.outside());
        drop(restored);
        s.step("and back");
        for node in &nodes {
            retry(90, || s.cluster.enter(&node.name, &ping));
        }
        s.pings("p0", s.cluster.outside());
    });
}

/// 6.6 as printed: the subnet is deleted, and made anew by a controller with another flag.
fn rebuild_join(s: &Story, range: &str) {
    let finalizers = r#"[{"op": "replace", "path": "/metadata/finalizers", "value": []}]"#;
    let kubectl = |args: &[&str]| s.cluster.kubectl(args).expect("a step of 6.6");
    // There may be none when an earlier try ended half-way.
    let _ = s.cluster.kubectl(&["patch", "subnet", "join", "--type=json", "-p", finalizers]);
    kubectl(&["delete", "subnet", "join", "--ignore-not-found", "--timeout=90s"]);
    kubectl(&["annotate", "node", "ovn.kubernetes.io/allocated=false", "--all", "--overwrite"]);
    let controller = ["-n", "kube-system", "deployment", "kube-ovn-controller"];
    let deployment = s.cluster.objects(&controller).remove(0);
    let mut flags = deployment["spec"]["template"]["spec"]["containers"][0]["args"].clone();
    for flag in flags.as_array_mut().expect("flags of the controller") {
        if text(flag).starts_with("--node-switch-cidr=") {
            *flag = json!(format!("--node-switch-cidr={range}"));
        }
    }
    let path = "/spec/template/spec/containers/0/args";
    let patch = json!([{"op": "replace", "path": path, "value": flags}]).to_string();
    kubectl(&[&["patch"], &controller[..], &["--type=json", "-p", &patch]].concat());
    kubectl(&["-n", "kube-system", "delete", "pod", "-lapp=kube-ovn-controller", "--wait=false"]);
    s.step(&format!("6.6.1 to 6.6.3 with {range}"));
}

#[test]
fn the_join_subnet_is_made_anew() {
    story("manual-6-6", |s| {
        let nodes = s.cluster.nodes();
        s.start(&[Pod::new("p0").on(&nodes[0].name)]);
        let ip = s.ip("p0");
        let all_is_well = || {
            for node in &nodes {
                let ping = ["ping", "-c", "1", "-W", "1", &ip];
                retry(90, || s.cluster.enter(&node.name, &ping));
            }
            s.pings("p0", s.cluster.outside());
        };
        let back = undo(|| {
            rebuild_join(s, &s.cluster.by_family("100.64.0.0/16", "fd00:100:64::/112"));
            join_addresses(s, &s.cluster.by_family("100.64.", "fd00:100:64:"));
        });
        rebuild_join(s, &s.cluster.by_family("100.51.0.0/16", "fd00:100:51::/112"));
        let given = join_addresses(s, &s.cluster.by_family("100.51.", "fd00:100:51:"));
        s.step(&format!("6.6.4: join addresses, records and ovn0 of all nodes: {given:?}"));
        all_is_well();
        drop(back);
        all_is_well();
        s.step("and back");
    });
}
