//! Random clusters: namespaces, pods and policies as raw objects, and connections in them.

use serde_json::{Value, json};

/// Splitmix64: the same worlds on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// True in `part` of 100 cases.
    fn chance(&mut self, part: usize) -> bool {
        self.below(100) < part
    }
}

const NAMESPACES: usize = 4;
const PODS: usize = 14;
const NUMBERS: [u16; 5] = [53, 80, 81, 443, 8080];
const NAMES: [&str; 3] = ["web", "dns", "adm-in"];
const PROTOCOLS: [&str; 4] = ["TCP", "TCP", "UDP", "SCTP"];

/// Everything that the API server would hold.
#[derive(Debug, Clone)]
pub struct World {
    pub namespaces: Vec<Value>,
    pub pods: Vec<Value>,
    /// NetworkPolicy, AdminNetworkPolicy, BaselineAdminNetworkPolicy.
    pub policies: Vec<Value>,
}

/// A connection between two pods of a world, or with an address outside.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// Indexes into the pods; the count of pods means outside.
    pub from: usize,
    pub to: usize,
    pub v6: bool,
    pub protocol: &'static str,
    pub port: u16,
}

pub const OUTSIDE: [&str; 2] = ["192.0.2.7", "2001:db8::7"];

/// Address of the n-th pod.
pub fn address(pod: usize, v6: bool) -> String {
    if v6 { format!("fd00:10:16::{:x}", pod + 16) } else { format!("10.16.0.{}", pod + 16) }
}

pub fn mac(pod: usize) -> String {
    format!("02:00:00:00:00:{:02x}", pod + 16)
}

impl World {
    pub fn random(random: &mut Random) -> Self {
        let namespaces = (0..NAMESPACES).map(|n| namespace(random, n)).collect();
        let pods = (0..PODS).map(|n| pod(random, n)).collect();
        let count = 1 + random.below(16);
        let mut policies: Vec<Value> = (0..count).map(|n| policy(random, n)).collect();
        // Of two with one priority the API does not say which counts.
        let first = random.below(90);
        for n in 0..random.below(5) {
            policies.push(admin(random, &format!("admin-{n}"), Some(first + 3 * n)));
        }
        if random.chance(40) {
            policies.push(admin(random, "default", None));
        }
        World { namespaces, pods, policies }
    }

    pub fn probe(&self, random: &mut Random) -> Probe {
        let count = self.pods.len();
        // Beyond the last pod is outside.
        let to = random.below(count + 2).min(count);
        let mut from = random.below(count + 2).min(count);
        if from == to {
            from = (from + 1) % count;
        }
        Probe {
            from,
            to,
            v6: random.chance(30),
            protocol: PROTOCOLS[random.below(PROTOCOLS.len())],
            port: *random.one(&NUMBERS),
        }
    }
}

fn namespace(random: &mut Random, n: usize) -> Value {
    let name = format!("ns{n}");
    let mut labels = labels(random, &["env", "team"]);
    labels["kubernetes.io/metadata.name"] = name.as_str().into();
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// Some of the keys, with values `a` to `c`.
fn labels(random: &mut Random, keys: &[&str]) -> Value {
    let mut all = json!({});
    for key in keys {
        if random.chance(75) {
            all[*key] = (*random.one(&["a", "b", "c"])).into();
        }
    }
    all
}

fn pod(random: &mut Random, n: usize) -> Value {
    let mut ports = vec![];
    for name in NAMES {
        if random.chance(50) {
            let mut port = json!({"name": name, "containerPort": random.one(&NUMBERS)});
            if random.chance(60) {
                port["protocol"] = (*random.one(&PROTOCOLS)).into();
            }
            ports.push(port);
        }
    }
    let half = ports.split_off(ports.len() / 2);
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("p{n}"), "namespace": format!("ns{}", random.below(NAMESPACES)),
            "labels": labels(random, &["app", "tier"])},
        "spec": {"nodeName": *random.one(&["node1", "node2"]),
            "containers": [{"name": "c", "ports": ports}, {"name": "d", "ports": half}]}})
}

fn selector(random: &mut Random, keys: &[&str]) -> Value {
    let key = *random.one(keys);
    match random.below(7) {
        0 | 1 => json!({}),
        2 | 3 => json!({"matchLabels": {key: *random.one(&["a", "b", "c"])}}),
        4 => json!({"matchExpressions": [
            {"key": key, "operator": *random.one(&["Exists", "DoesNotExist"])}]}),
        5 => json!({"matchExpressions": [
            {"key": key, "operator": *random.one(&["In", "NotIn"]), "values": ["a", "c"]}]}),
        _ => json!({"matchLabels": {key: "a"}, "matchExpressions": [
            {"key": *random.one(keys), "operator": *random.one(&["Exists", "In", "NotIn"]),
             "values": ["a", "b"]}]}),
    }
}

/// `Exists` takes no values.
fn tidy(mut selector: Value) -> Value {
    for expression in selector["matchExpressions"].as_array_mut().into_iter().flatten() {
        if expression["operator"] == "Exists" {
            expression.as_object_mut().unwrap().remove("values");
        }
    }
    selector
}

fn peer(random: &mut Random) -> Value {
    let pods = |random: &mut Random| tidy(selector(random, &["app", "tier"]));
    let places = |random: &mut Random| {
        if random.chance(20) {
            let name = format!("ns{}", random.below(NAMESPACES));
            return json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
        }
        tidy(selector(random, &["env", "team"]))
    };
    match random.below(5) {
        0 => json!({"podSelector": pods(random)}),
        1 => json!({"namespaceSelector": places(random)}),
        2 | 3 => json!({"namespaceSelector": places(random), "podSelector": pods(random)}),
        _ => json!({"ipBlock": block(random)}),
    }
}

fn block(random: &mut Random) -> Value {
    let n = random.below(PODS);
    match random.below(6) {
        0 => json!({"cidr": "0.0.0.0/0"}),
        1 => json!({"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}),
        2 => json!({"cidr": "10.16.0.16/28",
            "except": [format!("{}/32", address(n, false)), "10.16.0.20/30"]}),
        3 => json!({"cidr": format!("{}/32", address(n, false))}),
        4 => json!({"cidr": "192.0.0.0/16", "except": ["192.0.2.128/25"]}),
        _ => json!({"cidr": "::/0", "except": ["fd00:10:16::18/125"]}),
    }
}

fn port(random: &mut Random) -> Value {
    let mut port = match random.below(6) {
        0 => json!({}),
        1 | 2 => json!({"port": random.one(&NUMBERS)}),
        3 => json!({"port": 79, "endPort": 81}),
        4 => json!({"port": *random.one(&NAMES)}),
        _ => json!({"port": "nobody"}),
    };
    if random.chance(60) || port == json!({}) {
        port["protocol"] = (*random.one(&PROTOCOLS)).into();
    }
    port
}

fn rules(random: &mut Random, ends: &str) -> Value {
    let rules = (0..random.below(3)).map(|_| {
        let peers: Vec<Value> = (0..random.below(4)).map(|_| peer(random)).collect();
        let ports: Vec<Value> = (0..random.below(3)).map(|_| port(random)).collect();
        let mut rule = json!({});
        if !peers.is_empty() {
            rule[ends] = peers.into();
        }
        if !ports.is_empty() {
            rule["ports"] = ports.into();
        }
        rule
    });
    rules.collect()
}

fn policy(random: &mut Random, n: usize) -> Value {
    let mut spec = json!({"podSelector": tidy(selector(random, &["app", "tier"]))});
    for (rules_of, ends) in [("ingress", "from"), ("egress", "to")] {
        if random.chance(65) {
            spec[rules_of] = rules(random, ends);
        }
    }
    match random.below(4) {
        0 => {}
        1 => spec["policyTypes"] = json!(["Ingress"]),
        2 => spec["policyTypes"] = json!(["Egress"]),
        _ => spec["policyTypes"] = json!(["Ingress", "Egress"]),
    }
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("policy-{n}"), "namespace": format!("ns{}", random.below(NAMESPACES))},
        "spec": spec})
}

/// An AdminNetworkPolicy of that priority, or the baseline.
fn admin(random: &mut Random, name: &str, priority: Option<usize>) -> Value {
    let mut spec = json!({"subject": admin_pods(random)});
    for (rules, ends) in [("ingress", "from"), ("egress", "to")] {
        let list: Vec<Value> =
            (0..random.below(4)).map(|_| admin_rule(random, ends, priority.is_some())).collect();
        spec[rules] = list.into();
    }
    let kind = match priority {
        Some(priority) => {
            spec["priority"] = priority.into();
            "AdminNetworkPolicy"
        }
        None => "BaselineAdminNetworkPolicy",
    };
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": kind,
        "metadata": {"name": name}, "spec": spec})
}

fn admin_rule(random: &mut Random, ends: &str, may_pass: bool) -> Value {
    let actions: &[&str] =
        if may_pass { &["Allow", "Deny", "Deny", "Pass"] } else { &["Allow", "Deny"] };
    let peers: Vec<Value> = (0..1 + random.below(3))
        .map(|_| match random.below(4) {
            0 if ends == "to" => json!({"networks": [*random.one(&[
                "10.16.0.16/29", "192.0.2.0/24", "0.0.0.0/0", "2001:db8::/32", "::/0"])]}),
            _ => admin_pods(random),
        })
        .collect();
    let mut rule = json!({"action": *random.one(actions), ends: peers});
    let ports: Vec<Value> = (0..random.below(3)).map(|_| admin_port(random)).collect();
    if !ports.is_empty() {
        rule["ports"] = ports.into();
    }
    rule
}

fn admin_pods(random: &mut Random) -> Value {
    let namespaces = tidy(selector(random, &["env", "team"]));
    if random.chance(50) {
        return json!({"namespaces": namespaces});
    }
    let pods = tidy(selector(random, &["app", "tier"]));
    json!({"pods": {"namespaceSelector": namespaces, "podSelector": pods}})
}

fn admin_port(random: &mut Random) -> Value {
    let protocol = *random.one(&PROTOCOLS);
    match random.below(4) {
        0 => json!({"namedPort": *random.one(&NAMES)}),
        1 => json!({"portRange": {"protocol": protocol, "start": 79, "end": 81}}),
        _ => json!({"portNumber": {"protocol": protocol, "port": random.one(&NUMBERS)}}),
    }
}
