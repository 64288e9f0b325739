//! An independent judge: what Kubernetes says of random connections under random policies against
//! what ovn-trace says on a real northd: NetworkPolicy, AdminNetworkPolicy and
//! BaselineAdminNetworkPolicy together. `JUDGE_PROBES` (10,000) is how many, `JUDGE_SEED` (1)
//! where it starts. A disagreement is shrunk and written as a case of the translation.

mod semantics;
mod world;

use std::{
    io::{BufReader, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use kube_ovn::{api::Settings, net::Mac, store::Stored};
use serde_json::{StreamDeserializer, Value, de::IoRead, json};

use crate::{
    northd::Northd,
    ovsdb_server::{Folder, ovn_run, run},
    support::{
        objects::*,
        raw::{self, What},
    },
};
use semantics::{Connection, End, Pod, Rules};
use world::{OUTSIDE, Probe, Random, World, address, mac};

const PROBES_PER_WORLD: usize = 250;

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().map_or(default, |n| n.parse().expect(variable))
}

#[test]
fn random_policies_mean_what_kubernetes_says() {
    let (total, seed) = (number("JUDGE_PROBES", 10_000), number("JUDGE_SEED", 1));
    let begun = Instant::now();
    let mut northd = Northd::start();
    let (mut done, mut allowed) = (0, 0);
    for world_seed in (seed..).take(total.div_ceil(PROBES_PER_WORLD)) {
        let mut random = Random(world_seed as u64);
        let world = World::random(&mut random);
        northd.set(objects(&world));
        let mut tracer = Tracer::start(&northd);
        for _ in 0..PROBES_PER_WORLD {
            let probe = world.probe(&mut random);
            let (expected, found) = (expected(&world, &probe), tracer.passes(&world, &probe));
            if expected != found {
                drop(tracer);
                disagree(&mut northd, world, &probe, world_seed);
            }
            done += 1;
            allowed += usize::from(found);
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{done} probes, {allowed} allowed, {seconds:.1} s");
    // A judge that only ever sees one answer says nothing.
    assert!(allowed > done / 5 && allowed < done * 9 / 10, "{allowed} of {done}");
}

fn expected(world: &World, probe: &Probe) -> bool {
    let end = |n: usize| {
        let outside = OUTSIDE[usize::from(probe.v6)];
        let Some(pod) = world.pods.get(n) else {
            return End { pod: None, ip: outside.parse().unwrap() };
        };
        let containers = pod["spec"]["containers"].as_array().unwrap();
        let ports = containers.iter().flat_map(|c| c["ports"].as_array().into_iter().flatten());
        End {
            pod: Some(Pod {
                namespace: pod["metadata"]["namespace"].as_str().unwrap(),
                labels: &pod["metadata"]["labels"],
                ports: ports.collect(),
            }),
            ip: address(n, probe.v6).parse().unwrap(),
        }
    };
    let rules = Rules {
        policies: world.policies.iter().collect(),
        namespaces: world.namespaces.iter().collect(),
    };
    rules.allows(&Connection {
        from: end(probe.from),
        to: end(probe.to),
        protocol: probe.protocol,
        port: probe.port,
    })
}

fn all_policies() -> Settings {
    Settings { enable_anp: true, ..settings() }
}

/// What the controller sees.
fn objects(world: &World) -> Vec<Arc<dyn Stored>> {
    let mut all = vec![
        shared(all_policies()),
        shared(vpc("ovn-cluster")),
        shared(subnet("join", "100.64.0.0/16,fd00:100:64::/112")),
        shared(subnet("ovn-default", "10.16.0.0/16,fd00:10:16::/112")),
    ];
    for n in 1..=2 {
        let name = format!("node{n}");
        let mut ip = node_ip(&name, &format!("100.64.0.{n}0,fd00:100:64::{n}0"));
        ip.mac = Some(Mac([2, 0, 0, 0, 1, n]));
        all.push(shared(node(&name, &format!("172.18.0.{n},fc00::{n}"))));
        all.push(shared(ip));
    }
    for document in world.namespaces.iter().chain(&world.pods).chain(&world.policies) {
        let What::Present(object) = raw::read(document, &all_policies()).what else {
            panic!("refused: {document}");
        };
        all.push(object);
    }
    for (n, pod) in world.pods.iter().enumerate() {
        let text = |field: &str| pod["metadata"][field].as_str().unwrap();
        let addresses = format!("{},{}", address(n, false), address(n, true));
        let mut ip = pod_ip(text("namespace"), text("name"), "ovn-default", &addresses);
        ip.mac = Some(mac(n).parse().unwrap());
        all.push(shared(ip));
    }
    all
}

type Answers = StreamDeserializer<'static, IoRead<BufReader<UnixStream>>, Value>;

/// An ovn-trace that answers over its control socket: a process for each probe would cost more
/// than the probe.
struct Tracer {
    requests: UnixStream,
    answers: Answers,
    router_macs: [String; 2],
    _folder: Folder,
}

impl Tracer {
    fn start(northd: &Northd) -> Self {
        let folder = Folder::new();
        let socket = folder.0.join("trace.ctl");
        let mut command = ovn_run("ovn-trace");
        command
            .arg(format!("--db={}", northd.southbound()))
            .args(["--detach", "--no-chdir"])
            .arg(format!("--unixctl={}", socket.display()))
            .arg(format!("--pidfile={}", folder.0.join("trace.pid").display()))
            .args(["--ct=new"; 8]);
        run(command);
        let requests = UnixStream::connect(&socket).unwrap();
        let reader = BufReader::new(requests.try_clone().unwrap());
        let answers = serde_json::Deserializer::from_reader(reader).into_iter();
        let router_macs = ["join", "ovn-default"]
            .map(|subnet| northd.router_mac(&format!("ovn-cluster-{subnet}")));
        Tracer { requests, answers, router_macs, _folder: folder }
    }

    fn ask(&mut self, method: &str, params: &[&str]) -> String {
        let request = json!({"id": 1, "method": method, "params": params});
        self.requests.write_all(request.to_string().as_bytes()).unwrap();
        let answer = self.answers.next().expect("ovn-trace lives").unwrap();
        match answer["result"].as_str() {
            Some(text) => text.to_owned(),
            None => panic!("{params:?}: {answer}"),
        }
    }

    /// Whether the first packet of the connection comes out where it should.
    fn passes(&mut self, world: &World, probe: &Probe) -> bool {
        let port = |n: usize| {
            let text = |field: &str| world.pods[n]["metadata"][field].as_str().unwrap();
            format!("{}.{}", text("name"), text("namespace"))
        };
        let (inside, outside) = (world.pods.len(), OUTSIDE[usize::from(probe.v6)].to_owned());
        let ip = |n: usize| if n < inside { address(n, probe.v6) } else { outside.clone() };
        let [join, default] = &self.router_macs;
        let (switch, inport, source_mac) = match probe.from < inside {
            true => ("ovn-default", port(probe.from), mac(probe.from)),
            false => ("join", "node-node1".to_owned(), "02:00:00:00:01:01".to_owned()),
        };
        let target_mac = match (probe.from < inside, probe.to < inside) {
            (true, true) => mac(probe.to),
            (true, false) => default.clone(),
            _ => join.clone(),
        };
        let (family, protocol) =
            (if probe.v6 { "ip6" } else { "ip4" }, probe.protocol.to_lowercase());
        let packet = format!(
            "inport == {inport:?} && eth.src == {source_mac} && eth.dst == {target_mac} && \
             {family}.src == {} && {family}.dst == {} && ip.ttl == 64 && {protocol} && \
             {protocol}.src == 40000 && {protocol}.dst == {}",
            ip(probe.from),
            ip(probe.to),
            probe.port
        );
        let text = self.ask("trace", &["--minimal", switch, &packet]);
        match probe.to < inside {
            true => text.contains(&format!("output({:?}", port(probe.to))),
            false => text.contains("output(\"node-node"),
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let request = json!({"id": 2, "method": "exit", "params": []});
        let _ = self.requests.write_all(request.to_string().as_bytes());
    }
}

/// Removes all that the disagreement does not need, writes what is left, and fails.
fn disagree(northd: &mut Northd, mut world: World, probe: &Probe, seed: usize) -> ! {
    let mut differs = |world: &World| {
        northd.set(objects(world));
        let found = Tracer::start(northd).passes(world, probe);
        expected(world, probe) != found
    };
    assert!(differs(&world), "seed {seed}: {probe:?} is judged differently the second time");
    for _ in 0..4 {
        let before = world.policies.clone();
        shrink(&mut world, &mut differs);
        if world.policies == before {
            break;
        }
    }
    let wanted = expected(&world, probe);
    let file = write_case(&world, seed);
    panic!(
        "seed {seed}: Kubernetes {} {probe:?}, OVN does not agree; case in {}\n{:#?}\n{:#?} -> {:#?}",
        if wanted { "allows" } else { "denies" },
        file.display(),
        world.policies,
        world.pods.get(probe.from),
        world.pods.get(probe.to),
    );
}

fn shrink(world: &mut World, differs: &mut impl FnMut(&World) -> bool) {
    let mut paths = vec![];
    for n in (0..world.policies.len()).rev() {
        paths.push(format!("/{n}"));
    }
    let mut at = 0;
    while at < paths.len() {
        let path = paths[at].clone();
        at += 1;
        let mut smaller = world.clone();
        let mut policies = Value::Array(smaller.policies);
        if !remove(&mut policies, &path) {
            continue;
        }
        smaller.policies = policies.as_array().unwrap().clone();
        if differs(&smaller) {
            *world = smaller;
        } else {
            let rest = Value::Array(world.policies.clone());
            paths.extend(lists_in(rest.pointer(&path), &path));
        }
    }
}

/// Removes an element of a list.
fn remove(root: &mut Value, path: &str) -> bool {
    let (parent, index) = path.rsplit_once('/').unwrap();
    let Some(Value::Array(list)) = root.pointer_mut(parent) else { return false };
    let index: usize = index.parse().unwrap();
    (index < list.len()) && {
        list.remove(index);
        true
    }
}

/// Paths of the elements of all lists, the last ones first.
fn lists_in(value: Option<&Value>, path: &str) -> Vec<String> {
    match value {
        Some(Value::Object(all)) => {
            all.iter().flat_map(|(k, v)| lists_in(Some(v), &format!("{path}/{k}"))).collect()
        }
        Some(Value::Array(all)) => (0..all.len()).rev().map(|n| format!("{path}/{n}")).collect(),
        _ => vec![],
    }
}

fn write_case(world: &World, seed: usize) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("judge-{seed}"));
    std::fs::create_dir_all(&folder).unwrap();
    let mut text = "include: base/dual.yaml\n".to_owned();
    for (n, pod) in world.pods.iter().enumerate() {
        let (name, namespace) = (&pod["metadata"]["name"], &pod["metadata"]["namespace"]);
        let (v4, v6) = (address(n, false), address(n, true));
        let ip = json!({"apiVersion": "kubeovn.io/v1", "kind": "IP",
            "metadata": {"name": format!("{}.{}", name.as_str().unwrap(), namespace.as_str().unwrap())},
            "spec": {"podName": name, "namespace": namespace, "subnet": "ovn-default",
                "ipAddress": format!("{v4},{v6}"), "v4IpAddress": v4, "v6IpAddress": v6,
                "macAddress": mac(n)}});
        text += &format!("---\n{ip}\n");
    }
    for document in world.namespaces.iter().chain(&world.pods).chain(&world.policies) {
        text += &format!("---\n{document}\n");
    }
    let file = folder.join("objects.yaml");
    std::fs::write(&file, text).unwrap();
    file
}
