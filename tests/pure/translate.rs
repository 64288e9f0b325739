//! Cases of the translation: `tests/cases/<feature>/<case>/objects.yaml` (raw Kubernetes objects)
//! and the whole northbound database that follows from them, `nb.txt`; what is published,
//! `wanted.txt`. `step-2.yaml` ... change the cluster, with `nb-2.txt` and `wanted-2.txt`; a
//! document with `delete: true` removes its object. `BLESS=1` writes the results.
//!
//! Every case is also run in other orders and groupings, see [`expansions`]: all must end in the
//! same database.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use kube_ovn::{
    api::{Kind, Text},
    store::{Stored, Wanted},
};

use crate::support::{
    cluster::{Cluster, Cost},
    northbound::Server,
    objects::settings,
    raw::{self, Event, What},
};

type State = BTreeMap<(Kind, Text), Arc<dyn Stored>>;

struct Step {
    events: Vec<Event>,
    /// Objects that exist afterwards.
    state: State,
    /// Findings of the parsers, about objects that exist in Kubernetes.
    findings: Vec<String>,
}

struct Case {
    folder: PathBuf,
    steps: Vec<Step>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

fn folders(of: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(of).unwrap_or_else(|e| panic!("{}: {e}", of.display()));
    let mut all: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    all.sort();
    all
}

impl Case {
    fn read(folder: PathBuf) -> Case {
        let mut steps: Vec<Step> = Vec::new();
        let mut settings = settings();
        let mut findings: BTreeMap<(Kind, Text), Vec<String>> = BTreeMap::new();
        for n in 1.. {
            let name = if n == 1 { "objects.yaml".to_owned() } else { format!("step-{n}.yaml") };
            let file = folder.join(name);
            if n > 1 && !file.exists() {
                break;
            }
            let documents = raw::documents(&root(), &file);
            settings = raw::settings_of(&documents, &settings);
            let mut events: Vec<Event> = Vec::new();
            for event in documents.iter().map(|d| raw::read(d, &settings)) {
                // A later document of an object (over an included one) is meant instead.
                events.retain(|e| (e.kind, &e.key) != (event.kind, &event.key));
                events.push(event);
            }
            let mut state = steps.last().map(|s| s.state.clone()).unwrap_or_default();
            for event in &events {
                let key = (event.kind, event.key.clone());
                let mut found = Vec::new();
                match &event.what {
                    What::Present(object) => {
                        state.insert(key.clone(), object.clone());
                    }
                    What::Refused(refusals) => {
                        state.remove(&key);
                        found = refusals.clone();
                    }
                    What::Deleted => {
                        state.remove(&key);
                    }
                }
                let shown = |f: &kube_ovn::api::Invalid| {
                    format!(
                        "{} {} finding {}: {}",
                        event.kind.name(),
                        event.key,
                        f.reason,
                        f.message
                    )
                };
                findings.insert(key, found.iter().map(shown).collect());
            }
            let findings = findings.values().flatten().cloned().collect();
            steps.push(Step { events, state, findings });
        }
        Case { folder, steps }
    }

    fn file(&self, stem: &str, step: usize) -> PathBuf {
        let name =
            if step == 0 { format!("{stem}.txt") } else { format!("{stem}-{}.txt", step + 1) };
        self.folder.join(name)
    }
}

/// Everything that the engine would publish, one line per item.
fn wanted(cluster: &Cluster) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for (_, derived) in cluster.engine.owners() {
        for p in &derived.problems {
            lines.insert(format!(
                "{} {} problem {}: {}",
                p.kind.name(),
                p.key,
                p.reason,
                p.message
            ));
        }
        for wish in &derived.wanted {
            let (kind, key) = wish.target();
            let mut line = |rest: String| lines.insert(format!("{} {key} {rest}", kind.name()));
            match wish {
                Wanted::Annotations { values, .. } | Wanted::Labels { values, .. } => {
                    for (name, value) in values {
                        let value = value.as_ref().map_or("(removed)".into(), |v| format!("{v:?}"));
                        line(format!("{name} = {value}"));
                    }
                }
                Wanted::Status { status, .. } => {
                    for (name, value) in status.as_object().into_iter().flatten() {
                        line(format!("status.{name} = {value}"));
                    }
                }
                Wanted::Spec { spec, .. } => {
                    line(format!("spec {spec}"));
                }
                Wanted::Event { reason, message, event, .. } => {
                    line(format!("event {event:?} {reason}: {message}"));
                }
                Wanted::Finalizer { presence, .. } => {
                    line(format!("finalizer {presence:?}"));
                }
            }
        }
    }
    lines
}

impl Step {
    fn wanted(&self, cluster: &Cluster) -> String {
        let mut lines = wanted(cluster);
        lines.extend(self.findings.iter().cloned());
        lines.into_iter().fold(String::new(), |all, line| all + &line + "\n")
    }
}

fn apply(cluster: &mut Cluster, event: &Event) {
    match &event.what {
        What::Present(object) => cluster.put(object.clone()),
        What::Refused(_) | What::Deleted => cluster.remove(event.kind, &event.key),
    };
    cluster.check_oracle();
}

/// All events in one refresh.
fn apply_all(cluster: &mut Cluster, events: &[Event]) {
    for event in events {
        let (reads, cause) = match &event.what {
            What::Present(object) => {
                (cluster.store.upsert(object.clone()), kube_ovn::plan::Cause::Changed)
            }
            _ => {
                let reads = cluster.store.remove(event.kind, &event.key);
                (reads, kube_ovn::plan::Cause::Deleted)
            }
        };
        cluster.refresh(&reads, cause);
    }
    cluster.commit(Cost::default());
    cluster.check_oracle();
}

/// Goes from whatever there is to `state`.
fn go_to(cluster: &mut Cluster, state: &State) {
    let mut events = Vec::new();
    for &kind in Kind::ALL {
        for key in cluster.store.keys(kind) {
            if !state.contains_key(&(kind, key.clone())) {
                events.push(Event { kind, key: key.clone(), what: What::Deleted });
            }
        }
    }
    for ((kind, key), object) in state {
        let what = What::Present(object.clone());
        events.push(Event { kind: *kind, key: key.clone(), what });
    }
    apply_all(cluster, &events);
}

/// What is left when nothing is wanted.
fn assert_empty(cluster: &Cluster, how: &str) -> Result<(), String> {
    if cluster.nb.owned() == 0
        && cluster.nb.len() == Server::new(&kube_ovn::ovsdb::schema::nb::DATABASE).len()
    {
        return Ok(());
    }
    Err(format!("{how}: rows are left\n{}", cluster.nb.dump()))
}

/// Splitmix64: permutations must be the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// A step has one event per object, so any order is a possible one.
    fn shuffled(&mut self, events: &[Event]) -> Vec<Event> {
        let mut all: Vec<Event> = events.to_vec();
        for i in (1..all.len()).rev() {
            all.swap(i, self.below(i + 1));
        }
        all
    }
}

struct Expected {
    nb: Vec<String>,
    wanted: Vec<String>,
}

fn check(
    cluster: &Cluster,
    case: &Case,
    step: usize,
    expected: &Expected,
    how: &str,
) -> Result<(), String> {
    let how = format!("{how}, step {}", step + 1);
    same(&expected.nb[step], &cluster.nb.dump(), &format!("{how}: nb"))?;
    same(&expected.wanted[step], &case.steps[step].wanted(cluster), &format!("{how}: wanted"))
}

/// The same history in other shapes.
fn expansions(case: &Case, expected: &Expected) -> Result<(), String> {
    type Run = fn(&mut Cluster, &Step);
    let runs: [(&str, Run); 4] = [
        ("object by object", |c, s| s.events.iter().for_each(|e| apply(c, e))),
        ("reversed", |c, s| s.events.iter().rev().for_each(|e| apply(c, e))),
        ("duplicated", |c, s| {
            s.events.iter().for_each(|e| {
                apply(c, e);
                apply(c, e);
            })
        }),
        ("one owner per transaction", |c, s| {
            c.limit = 1;
            apply_all(c, &s.events);
        }),
    ];
    for (how, run) in runs {
        let mut cluster = Cluster::default();
        for (n, step) in case.steps.iter().enumerate() {
            run(&mut cluster, step);
            check(&cluster, case, n, expected, how)?;
        }
    }
    let last = case.steps.len() - 1;
    let mut cluster = Cluster::default();
    go_to(&mut cluster, &case.steps[last].state);
    check(&cluster, case, last, expected, "squashed")?;
    for (n, step) in case.steps.iter().enumerate().rev() {
        go_to(&mut cluster, &step.state);
        check(&cluster, case, n, expected, "steps reversed")?;
    }
    for (n, step) in case.steps.iter().enumerate() {
        go_to(&mut cluster, &State::new());
        assert_empty(&cluster, "empty between")?;
        go_to(&mut cluster, &step.state);
        check(&cluster, case, n, expected, "after empty")?;
        let operations = cluster.restart();
        if operations != 0 {
            return Err(format!("restart at step {}: {operations} operations", n + 1));
        }
        check(&cluster, case, n, expected, "after restart")?;
    }
    // What changed while the controller was down.
    let mut cluster = Cluster::default();
    for (n, step) in case.steps.iter().enumerate() {
        go_to_store(&mut cluster, &step.state);
        cluster.restart();
        check(&cluster, case, n, expected, "changed while down")?;
    }
    for key in case.steps[last].state.keys() {
        cluster.remove(key.0, &key.1);
        cluster.check_oracle();
    }
    assert_empty(&cluster, "deleted object by object")?;
    permutations(case, expected)
}

fn go_to_store(cluster: &mut Cluster, state: &State) {
    cluster.store = Default::default();
    for object in state.values() {
        cluster.store.upsert(object.clone());
    }
}

fn permutations(case: &Case, expected: &Expected) -> Result<(), String> {
    for seed in 1..=6 {
        let mut random = Random(seed);
        let mut cluster = Cluster::default();
        for (n, step) in case.steps.iter().enumerate() {
            cluster.limit = 1 + random.below(4);
            let events = random.shuffled(&step.events);
            let mut rest = &events[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(1 + random.below(rest.len()));
                apply_all(&mut cluster, now);
                rest = later;
            }
            check(&cluster, case, n, expected, &format!("permutation {seed}"))?;
        }
    }
    Ok(())
}

fn same(expected: &str, found: &str, what: &str) -> Result<(), String> {
    if expected == found {
        return Ok(());
    }
    let mut text = format!("{what} (- expected, + found)\n");
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    for line in diff(&old, &new) {
        let _ = writeln!(text, "    {line}");
    }
    Err(text)
}

/// Lines that differ, with the row that they belong to.
fn diff(old: &[&str], new: &[&str]) -> Vec<String> {
    let rows = |lines: &[&str]| -> BTreeSet<(String, String)> {
        let mut row = String::new();
        let mut all = BTreeSet::new();
        for line in lines {
            if !line.starts_with(' ') {
                row = (*line).to_owned();
            }
            all.insert((row.clone(), (*line).to_owned()));
        }
        all
    };
    let (old, new) = (rows(old), rows(new));
    let mut all: Vec<(String, String)> = Vec::new();
    all.extend(old.difference(&new).map(|(row, line)| (row.clone(), format!("- {line}"))));
    all.extend(new.difference(&old).map(|(row, line)| (row.clone(), format!("+ {line}"))));
    all.sort();
    let mut shown = Vec::new();
    let mut last = String::new();
    for (row, line) in all {
        if row != last && !line.ends_with(&row) {
            shown.push(format!("  {row}"));
        }
        last = row;
        shown.push(line);
    }
    shown
}

fn run(folder: PathBuf) -> Result<(), String> {
    let case = Case::read(folder);
    let bless = std::env::var_os("BLESS").is_some();
    let mut cluster = Cluster::default();
    let mut expected = Expected { nb: vec![], wanted: vec![] };
    let mut findings = Vec::new();
    for (n, step) in case.steps.iter().enumerate() {
        apply_all(&mut cluster, &step.events);
        for (stem, found) in [("nb", cluster.nb.dump()), ("wanted", step.wanted(&cluster))] {
            let file = case.file(stem, n);
            if bless {
                std::fs::write(&file, &found).unwrap();
            }
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            findings.extend(same(&text, &found, &file.display().to_string()).err());
            if stem == "nb" { expected.nb.push(found) } else { expected.wanted.push(found) }
        }
    }
    findings.extend(expansions(&case, &expected).err());
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n")) }
}

fn feature(name: &str) {
    let folders = folders(&root().join(name));
    assert!(!folders.is_empty(), "no case of {name}");
    let wanted = std::env::var("CASE").unwrap_or_default();
    let mut failures = Vec::new();
    for folder in folders.into_iter().filter(|f| f.ends_with(&wanted) || wanted.is_empty()) {
        let case = folder.clone();
        let result = std::panic::catch_unwind(|| run(case)).unwrap_or_else(|_| Err("panic".into()));
        failures.extend(result.err().map(|e| format!("{}\n{e}", folder.display())));
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n\n"));
}

macro_rules! features {
    ($($test:ident $folder:literal)*) => {
        $(#[test]
        fn $test() {
            feature($folder);
        })*

        const FOLDERS: &[&str] = &[$($folder),*];
    };
}

features! {
    global "global"
    vpc "vpc"
    subnet "subnet"
    subnet_gateway "subnet-gateway"
    node_gateway "node-gateway"
    external_gateway "external-gateway"
    subnet_acl "subnet-acl"
    subnet_dhcp "subnet-dhcp"
    subnet_multicast "subnet-multicast"
    subnet_vip "subnet-vip"
    node "node"
    namespace "namespace"
    pod "pod"
    security_group "security-group"
    admin_network_policy "admin-network-policy"
    baseline_admin_network_policy "baseline-admin-network-policy"
    admin_policy_node "admin-policy-node"
    network_policy "network-policy"
    policy_member "policy-member"
    policy_exemption "policy-exemption"
    policy_gateway "policy-gateway"
    policy_node "policy-node"
    service "service"
    retained "retained"
}

#[test]
fn every_feature_has_cases_and_every_folder_a_test() {
    let features: BTreeSet<&str> = kube_ovn::ovn::FEATURES.iter().map(|f| f.name).collect();
    let tested: BTreeSet<&str> = FOLDERS.iter().copied().collect();
    assert!(features.is_subset(&tested), "{features:?} {tested:?}");
    for folder in folders(&root()) {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name == "base" || tested.contains(&*name), "{name}: no test runs these cases");
    }
}
