//! The rules of the design, checked on the source: who may import whom, what pure code must not
//! touch, how big things may get. A failure names every line that breaks a rule.

use std::collections::BTreeSet;

use crate::source::{Source, read_all};

/// Layers and what each may import. `x.io` is the half of a module that does I/O.
const LAYERS: &[(&str, &[&str])] = &[
    ("net", &[]),
    ("api", &["net"]),
    ("ipam", &["net", "api"]),
    ("offload", &["net", "api"]),
    ("ovsdb", &["net"]),
    ("ovsdb.io", &["net", "ovsdb"]),
    ("store", &["net", "api", "ovsdb"]),
    ("store.io", &["net", "api", "store"]),
    ("ovn", &["net", "api", "store", "ovsdb"]),
    ("host", &["net", "api", "store", "ovsdb", "offload"]),
    ("plan", &["net", "api", "store", "ovsdb"]),
    ("kernel", &["net", "api"]),
    ("cni", &["net", "api"]),
    ("telemetry", &["net"]),
    (
        "controller",
        &[
            "net",
            "api",
            "ipam",
            "kernel",
            "ovn",
            "plan",
            "store",
            "store.io",
            "ovsdb",
            "ovsdb.io",
            "telemetry",
        ],
    ),
    (
        "node",
        &[
            "net",
            "api",
            "host",
            "offload",
            "kernel",
            "cni",
            "plan",
            "store",
            "store.io",
            "ovsdb",
            "ovsdb.io",
            "telemetry",
        ],
    ),
    ("central", &["net", "api", "kernel", "ovsdb", "ovsdb.io", "telemetry"]),
    ("cli", &["net", "api", "ovn", "plan", "store", "store.io", "ovsdb", "telemetry"]),
    ("pinger", &["net", "api", "kernel", "ovsdb", "ovsdb.io", "telemetry"]),
    ("speaker", &["net", "api", "kernel", "store", "store.io", "telemetry"]),
    ("monitor", &["net", "api", "kernel", "ovsdb", "ovsdb.io", "telemetry"]),
    ("webhook", &["net", "api", "store", "store.io", "telemetry"]),
    ("ic", &["net", "api", "ovsdb", "ovsdb.io", "store", "store.io", "plan", "telemetry"]),
    ("bfd", &["net", "telemetry"]),
];

/// Files that are the I/O half of a module that is pure otherwise.
const IO_FILES: &[(&str, &str)] = &[
    ("ovsdb", "client"),
    ("ovsdb", "dial"),
    ("ovsdb", "glance"),
    ("ovsdb", "rpc"),
    ("ovsdb", "session"),
    ("ovsdb", "tls"),
    ("ovsdb", "unixctl"),
    ("ovsdb", "wire"),
    ("store", "watch"),
];

const PURE: &[&str] = &["net", "api", "ipam", "offload", "ovsdb", "store", "ovn", "host", "plan"];

/// Words and paths that have no place in pure code; a path also forbids what is below it.
const IMPURE: &[&str] = &[
    "async",
    "await",
    "tokio",
    "futures",
    "rand",
    "tracing",
    "SystemTime",
    "Mutex",
    "RwLock",
    "Condvar",
    "println",
    "eprintln",
    "Instant::now",
    "std::time::Instant::now",
    "Timestamp::now",
    "kube::Client",
    "kube::client",
    "kube::Api",
    "kube::api::Api",
    "std::fs",
    "std::process",
    "std::thread",
    "std::env",
    "std::sync::mpsc",
];

const VAGUE_NAMES: &[&str] =
    &["util", "utils", "common", "helper", "helpers", "manager", "types", "misc"];

const FILE_LINES: usize = 800;
const FUNCTION_LINES: usize = 100;
const PARAMETERS: usize = 6;

/// Fails with all findings of a rule.
fn report(rule: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{rule}:\n  {}\n", findings.join("\n  "));
}

fn product() -> Vec<Source> {
    read_all(&["src"])
}

/// Layer of a file below src/, or of `module::child` as written after `crate::`.
fn layer(module: &str, child: Option<&str>) -> String {
    match child {
        Some(child) if IO_FILES.contains(&(module, child)) => format!("{module}.io"),
        _ => module.to_owned(),
    }
}

/// `src/ovn/pod.rs` -> (`ovn`, `pod`); `None` for lib.rs and the executable.
fn module_of(path: &str) -> Option<(String, Option<String>)> {
    let mut parts = path.strip_prefix("src/")?.split('/');
    let module = parts.next()?.to_owned();
    if module.ends_with(".rs") || module == "bin" {
        return None;
    }
    let child = parts.next().map(|part| part.trim_end_matches(".rs").to_owned());
    Some((module, child.filter(|child| child != "mod")))
}

fn layer_of(path: &str) -> Option<String> {
    let (module, child) = module_of(path)?;
    Some(layer(&module, child.as_deref()))
}

fn is_pure(path: &str) -> bool {
    layer_of(path).is_some_and(|layer| PURE.contains(&layer.as_str()))
}

#[test]
fn layers_import_only_what_lies_below() {
    report("layers (design, section 3)", wrong_imports(&product()));
}

fn wrong_imports(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        let Some(own) = layer_of(&source.path) else { continue };
        if own == "cmd" {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == own) else {
            findings.push(format!("{}: module {own} has no place in the layers", source.path));
            continue;
        };
        for (line, path) in source.paths() {
            let Some(inside) = path.strip_prefix("crate::") else { continue };
            let mut parts = inside.split("::");
            let module = parts.next().unwrap_or_default();
            let target = layer(module, parts.next());
            // The halves of one module: I/O may use the pure half, not the other way round.
            let half = own.split('.').next() == Some(module) && target == module;
            if !(half || target == own || allowed.contains(&target.as_str())) {
                findings.push(format!("{}:{line}: {own} must not import {path}", source.path));
            }
        }
    }
    findings
}

#[test]
fn pure_halves_do_not_use_the_io_half_beside_them() {
    report("pure half and I/O half", io_beside(&product()));
}

fn io_beside(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| is_pure(&source.path)) {
        // Declaring the module is the only thing mod.rs may do.
        let Some((module, child)) = module_of(&source.path) else { continue };
        for (line, path) in source.paths() {
            let relative = path.strip_prefix("super::").or_else(|| match child {
                None => Some(path.as_str()).filter(|p| p.contains("::")),
                Some(_) => None,
            });
            let head = relative.and_then(|path| path.split("::").next()).unwrap_or_default();
            if IO_FILES.contains(&(module.as_str(), head)) {
                findings.push(format!("{}:{line}: {path} does I/O", source.path));
            }
        }
    }
    findings
}

#[test]
fn pure_code_is_pure() {
    report("words without a place in pure modules", impure_words(&product()));
}

fn impure_words(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| is_pure(&source.path)) {
        for (line, path) in source.paths() {
            let hit = IMPURE.iter().find(|word| {
                let below = path.strip_prefix(**word).is_some_and(|rest| rest.starts_with("::"));
                let within = !word.contains("::") && path.split("::").any(|part| part == **word);
                path == **word || below || within
            });
            if let Some(word) = hit {
                findings.push(format!("{}:{line}: {word}", source.path));
            }
        }
    }
    findings
}

#[test]
fn features_do_not_know_each_other() {
    report("features import no sibling", sibling_imports(&product()));
}

fn sibling_imports(sources: &[Source]) -> Vec<String> {
    let Some(registry) = sources.iter().find(|source| source.path == "src/ovn/mod.rs") else {
        panic!("src/ovn/mod.rs is missing");
    };
    let paths = registry.paths();
    let features: BTreeSet<&str> =
        paths.iter().filter_map(|(_, path)| path.strip_suffix("::desired")).collect();
    assert!(!features.is_empty(), "no feature found in FEATURES");
    let mut findings = Vec::new();
    for source in sources {
        let Some((module, Some(own))) = module_of(&source.path) else { continue };
        if module != "ovn" {
            continue;
        }
        for (line, path) in source.paths() {
            let inside = path.strip_prefix("super::").or_else(|| path.strip_prefix("crate::ovn::"));
            let head = inside.and_then(|path| path.split("::").next()).unwrap_or_default();
            if head != own && features.contains(head) {
                findings.push(format!("{}:{line}: {path} is another feature", source.path));
            }
        }
    }
    findings
}

#[test]
fn sizes_stay_in_budget() {
    let mut findings = Vec::new();
    let mut large = Vec::new();
    for source in read_all(&["src", "tests"]) {
        if source.generated() {
            continue;
        }
        let lines = source.raw.lines().count();
        if lines > FILE_LINES {
            findings.push(format!("{}: {lines} lines, {FILE_LINES} at most", source.path));
        } else if lines > FILE_LINES / 2 {
            large.push(format!("{} {lines}", source.path));
        }
        for function in source.functions() {
            let place = format!("{}:{}: fn {}", source.path, function.line, function.name);
            if function.lines > FUNCTION_LINES {
                findings.push(format!("{place}: {} lines", function.lines));
            }
            if function.parameters.len() > PARAMETERS {
                findings.push(format!("{place}: {} parameters", function.parameters.len()));
            }
        }
    }
    println!("files above the wished 400 lines: {}", large.join(", "));
    report("budgets", findings);
}

#[test]
fn parameters_say_what_they_mean() {
    let mut findings = Vec::new();
    for source in product().into_iter().filter(|source| !source.generated()) {
        for function in source.product_functions() {
            // A conversion has no say in its parameter.
            let named = function.name != "from";
            if named && function.parameters.iter().any(|kind| kind == "bool") {
                let place = format!("{}:{}", source.path, function.line);
                findings.push(format!("{place}: fn {} takes a bare bool", function.name));
            }
        }
    }
    report("no bare bool parameters, use an enum", findings);
}

#[test]
fn modules_have_a_subject() {
    let vague = |source: &Source| {
        let mut parts = source.path.split('/').map(|part| part.trim_end_matches(".rs"));
        parts.any(|part| VAGUE_NAMES.contains(&part))
    };
    let findings = product().into_iter().filter(vague).map(|source| source.path).collect();
    report("module names that say nothing", findings);
}

#[test]
fn processes_and_unsafe_code_stay_where_they_belong() {
    let findings = misplaced(&product());
    report("Command only in kernel/ and cli/, unsafe only in kernel/netns.rs", findings);
}

fn misplaced(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        let own = layer_of(&source.path).unwrap_or_default();
        for (line, path) in source.paths() {
            let spawns = path.ends_with("process::Command");
            if spawns && own != "kernel" && own != "cli" {
                findings.push(format!("{}:{line}: {path}", source.path));
            }
            if path == "unsafe" && source.path != "src/kernel/netns.rs" {
                findings.push(format!("{}:{line}: unsafe", source.path));
            }
        }
    }
    findings
}

#[test]
fn the_product_does_not_panic() {
    report("no unwrap, expect or panic outside tests", panics(&product()));
}

fn panics(sources: &[Source]) -> Vec<String> {
    let calls = [".unwrap()", ".expect(", ".unwrap_err()", ".expect_err("];
    let macros = ["panic!", "unreachable!", "todo!", "unimplemented!"];
    let mut findings = Vec::new();
    for source in sources {
        for (number, line) in source.product.lines().enumerate() {
            let hit = calls.iter().chain(&macros).find(|call| line.contains(**call));
            if let Some(call) = hit {
                findings.push(format!("{}:{}: {call}", source.path, number + 1));
            }
        }
    }
    findings
}

#[test]
fn every_module_says_what_it_is() {
    let bare = |source: &Source| {
        let first = source.raw.lines().next().unwrap_or_default();
        let root = source.path.ends_with("/mod.rs") || source.path == "src/lib.rs";
        root && !first.starts_with("//!") && !source.generated()
    };
    let findings = product().into_iter().filter(bare).map(|source| source.path).collect();
    report("a module starts with its documentation", findings);
}

#[test]
fn nothing_names_the_machine_it_was_made_on() {
    let mut findings = Vec::new();
    for source in read_all(&["src", "tests"]) {
        if source.path == "tests/pure/architecture.rs" {
            continue;
        }
        for (number, line) in source.raw.lines().enumerate() {
            if line.contains("/work/") {
                findings.push(format!("{}:{}", source.path, number + 1));
            }
        }
    }
    report("paths of a machine", findings);
}

/// The rules themselves: each must find what it is there for.
#[test]
fn rules_find_violations() {
    let registry = Source::parse("src/ovn/mod.rs", "F { d: a::desired }, F { d: b::desired }");
    let feature = |code: &str| {
        vec![Source::parse("src/ovn/mod.rs", &registry.raw), Source::parse("src/ovn/a.rs", code)]
    };
    let one = |path: &str, code: &str| vec![Source::parse(path, code)];
    for (rule, bad, good) in [
        (
            wrong_imports as fn(&[Source]) -> Vec<String>,
            one("src/ovn/a.rs", "use crate::{api::Kind, plan::Engine};"),
            one("src/ovn/a.rs", "use crate::{api::Kind, store::View}; // crate::plan"),
        ),
        (
            wrong_imports,
            one("src/ovn/a.rs", "fn f() { crate::store::watch::run() }"),
            one("src/controller/a.rs", "fn f() { crate::store::watch::run() }"),
        ),
        (
            wrong_imports,
            one("src/node/a.rs", "use crate::controller::leader;"),
            one("src/cmd/a.rs", "use crate::controller::leader;"),
        ),
        (
            io_beside,
            one("src/ovsdb/replica.rs", "use super::client::Client;"),
            one("src/ovsdb/client.rs", "use super::replica::Replica;"),
        ),
        (
            io_beside,
            one("src/store/mod.rs", "pub use watch::Seen;"),
            one("src/store/mod.rs", "pub mod watch;"),
        ),
        (
            impure_words,
            one("src/plan/a.rs", "use std::{fs::File, sync::Arc};"),
            one("src/node/a.rs", "use std::{fs::File, sync::Arc};"),
        ),
        (
            impure_words,
            one("src/host/a.rs", "let t = std::time::Instant::now();"),
            one("src/host/a.rs", "let t: Instant = now; // Instant::now"),
        ),
        (
            impure_words,
            one("src/api/a.rs", "use kube::Client;"),
            one("src/api/a.rs", "use kube::CustomResource;"),
        ),
        (sibling_imports, feature("use super::b::X;"), feature("use super::keys::X;")),
        (
            misplaced,
            one("src/node/a.rs", "use std::process::{Command, Stdio};"),
            one("src/kernel/a.rs", "use tokio::process::Command;"),
        ),
        (
            misplaced,
            one("src/node/a.rs", "unsafe { x() }"),
            one("src/kernel/netns.rs", "unsafe { x() }"),
        ),
        (
            panics,
            one("src/net/a.rs", "x.unwrap()"),
            one("src/net/a.rs", "x.unwrap_or(1); #[cfg(test)] mod t { fn f() { x.unwrap() } }"),
        ),
    ] {
        assert!(!rule(&bad).is_empty(), "not found: {}", bad.last().unwrap().raw);
        let found = rule(&good);
        assert!(found.is_empty(), "{found:?}: {}", good.last().unwrap().raw);
    }
}
