//! Services as ovn-northd of OVN 25.03 understands our load balancers.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use kube_ovn::{
    api::{Kind, Text},
    store::Stored,
};

use crate::{
    northd::Northd,
    support::{
        objects::settings,
        raw::{self, What},
    },
};

type Objects = BTreeMap<(Kind, Text), Arc<dyn Stored>>;

/// What a file of the case says, on top of what there is.
fn apply(rig: &mut Northd, objects: &mut Objects, file: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let case = root.join("service/pods-and-their-services").join(file);
    let documents = raw::documents(&root, &case);
    let settings = raw::settings_of(&documents, &settings());
    for event in documents.iter().map(|d| raw::read(d, &settings)) {
        let key = (event.kind, event.key);
        match event.what {
            What::Present(object) => objects.insert(key, object),
            What::Refused(_) | What::Deleted => objects.remove(&key),
        };
    }
    rig.set(objects.values().cloned());
}

/// The way of a new connection of pod a, or of d in the subnet without load balancers.
fn trace(rig: &Northd, pod: &str, rest: &str) -> String {
    let (subnet, ip) = match pod {
        "a" => ("ovn-default", "10.16.0.5"),
        _ => ("plain", "10.20.0.5"),
    };
    let find = |column: &str, table: &str, name: String| {
        rig.ask("ovn-nbctl", &["--bare", &format!("--columns={column}"), "find", table, &name])
    };
    let addresses = find("addresses", "Logical_Switch_Port", format!("name={pod}.default"));
    let mac = addresses.split_whitespace().next().unwrap();
    let router = find("mac", "Logical_Router_Port", format!("name=ovn-cluster-{subnet}"));
    let packet = format!(
        "inport == \"{pod}.default\" && eth.src == {mac} && eth.dst == {} && ip.ttl == 64 && \
         ip4.src == {ip} && {rest}",
        router.trim()
    );
    rig.ask("ovn-trace", &["--minimal", "--ct=new", subnet, &packet])
}

#[test]
fn load_balancers_of_services_in_ovn() {
    let mut rig = Northd::start();
    let mut objects = Objects::new();
    apply(&mut rig, &mut objects, "objects.yaml");
    // Cluster IP and external IP: one of the two backends.
    for address in ["10.96.0.10", "192.0.2.1"] {
        let way = trace(&rig, "a", &format!("ip4.dst == {address} && tcp.dst == 80"));
        let hit = way.contains("output(\"b.default\")") || way.contains("output(\"c.default\")");
        assert!(hit, "{address}: {way}");
        // A port that is not the Service's.
        let way = trace(&rig, "a", &format!("ip4.dst == {address} && tcp.dst == 81"));
        assert!(!way.contains("b.default") && !way.contains("c.default"), "{address}:81: {way}");
    }
    // No endpoints: refused, not swallowed.
    let way = trace(&rig, "a", "ip4.dst == 10.96.0.11 && tcp.dst == 80");
    assert!(way.contains("tcp_reset") && way.contains("output(\"a.default\")"), "{way}");
    let way = trace(&rig, "a", "ip4.dst == 10.96.0.11 && udp.dst == 53");
    assert!(way.contains("icmp4") && way.contains("output(\"a.default\")"), "{way}");
    // A pod that calls itself comes back to itself.
    let way = trace(&rig, "a", "ip4.dst == 10.96.0.14 && tcp.dst == 80");
    assert!(way.contains("output(\"a.default\")") && !way.contains("tcp_reset"), "{way}");
    // Affinity: the choice hangs on the addresses alone.
    let flows = rig.ask("ovn-sbctl", &["lflow-list", "ovn-default"]);
    let sticky: Vec<&str> = flows.lines().filter(|l| l.contains("10.96.0.12")).collect();
    let hashed = |l: &&&str| l.contains("hash_fields=\"ip_dst,ip_src\"");
    assert!(sticky.iter().any(|l| hashed(&l)), "{sticky:?}");
    assert!(!flows.contains("commit_lb_aff"), "learning loses the first packet");
    // Policy Local: the backends are the node's own.
    let near = |l: &&str| l.contains("10.96.0.13") && l.contains("ct_lb_mark(backends=^lb_");
    assert!(flows.lines().any(|l| near(&l)), "{flows}");
    let values = rig.ask(
        "ovn-sbctl",
        &["--bare", "--columns=chassis,variables", "list", "Chassis_Template_Var"],
    );
    assert_eq!(values.matches("10.16.0.6:8080").count(), 1, "{values}");
    // A subnet without load balancers sends to its gateway: the node's kube-proxy does the work.
    assert!(!rig.ask("ovn-sbctl", &["lflow-list", "plain"]).contains("ct_lb_mark(backends"));
    let way = trace(&rig, "d", "ip4.dst == 10.96.0.10 && tcp.dst == 80");
    assert!(way.contains("output(\"node-node2\")"), "{way}");
    // Off: nothing is left, and pods still reach each other.
    let there = rig.ask("ovn-nbctl", &["--bare", "--columns=name", "list", "Load_Balancer"]);
    assert_eq!(there.split_whitespace().count(), 6, "{there}");
    apply(&mut rig, &mut objects, "step-2.yaml");
    for table in ["Load_Balancer", "Load_Balancer_Group", "Chassis_Template_Var"] {
        assert_eq!(rig.ask("ovn-nbctl", &["--bare", "list", table]).trim(), "", "{table}");
    }
    let way = trace(&rig, "a", "ip4.dst == 10.20.0.5 && tcp.dst == 80");
    assert!(way.contains("output(\"d.default\")"), "{way}");
}
