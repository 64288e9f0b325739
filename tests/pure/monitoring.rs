//! Dashboards and alarms ask for metrics that exist.

use std::{collections::BTreeSet, fs, path::PathBuf};

use kube_ovn::{
    cmd::controller_metrics,
    controller::{figures, reconcile::SharedProgress},
    monitor, node, pinger,
    telemetry::{Family, metrics},
};
use regex::Regex;
use serde_json::Value;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("packaging/monitoring")
}

/// Every name that a program registers, from the tables and from the collectors themselves.
fn registered() -> BTreeSet<String> {
    let tables: [&[Family]; 6] = [
        pinger::metrics::OVS_FAMILIES,
        monitor::metrics::FAMILIES,
        figures::FAMILIES,
        &[figures::LATENCY],
        node::figures::FAMILIES,
        &pinger::metrics::families(),
    ];
    let mut names: BTreeSet<String> =
        tables.iter().flat_map(|table| table.iter()).map(|f| f.name.to_owned()).collect();
    let registry = prometheus::Registry::new();
    let cni = node::metrics::Metrics::register(&registry, "n").unwrap();
    cni.observe_request("/api/v1/add", 200, 0.1);
    names.extend(registry.gather().iter().map(|f| f.name().to_owned()));
    controller_metrics::register(&SharedProgress::default()).unwrap();
    names.extend(metrics::registry().gather().iter().map(|f| f.name().to_owned()));
    // Of the log, which a process sets up once; of Prometheus itself.
    names.extend(["klog_lines_total", "klog_bytes_total", "up"].map(str::to_owned));
    names
}

/// Metric names in a PromQL expression.
fn names(expression: &str) -> Vec<String> {
    let drop = Regex::new(r#""[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)"#).unwrap();
    let bare = drop.replace_all(expression, " ");
    let word = Regex::new(r"[a-zA-Z_:][a-zA-Z0-9_:]*\s*\(?").unwrap();
    let words = word.find_iter(&bare).map(|m| m.as_str().trim_end().to_owned());
    words
        .filter(|w| {
            !w.ends_with('(') && !["or", "and", "unless", "by", "bool"].contains(&w.as_str())
        })
        .collect()
}

fn exists(name: &str, known: &BTreeSet<String>) -> bool {
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
    known.contains(name) || base.is_some_and(|base| known.contains(base))
}

fn dashboards() -> Vec<(String, Value)> {
    let files = fs::read_dir(folder()).unwrap().map(|e| e.unwrap().path());
    let json = files.filter(|p| p.extension().is_some_and(|e| e == "json"));
    json.map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name.clone(), serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}")))
    })
    .collect()
}

#[test]
fn queries_of_dashboards_and_alarms_have_data() {
    let known = registered();
    let mut expressions = Vec::new();
    for (file, dashboard) in dashboards() {
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let place = format!("{file}: {}", panel["title"]);
                expressions.push((place, target["expr"].as_str().unwrap().to_owned()));
            }
        }
    }
    let text = fs::read_to_string(folder().join("rules.yaml")).unwrap();
    let rules: Value = serde_saphyr::from_str(&text).unwrap();
    for rule in rules["spec"]["groups"][0]["rules"].as_array().unwrap() {
        assert!(
            rule["annotations"]["summary"].is_string() && rule["labels"]["severity"].is_string()
        );
        expressions.push((rule["alert"].to_string(), rule["expr"].as_str().unwrap().to_owned()));
    }
    assert!(expressions.len() > 60, "{}", expressions.len());
    for (place, expression) in expressions {
        let found = names(&expression);
        assert!(!found.is_empty(), "{place}: {expression}");
        let missing: Vec<&String> = found.iter().filter(|n| !exists(n, &known)).collect();
        assert!(missing.is_empty(), "{place}: no program registers {missing:?}");
    }
}

/// Where a value breaks a schema: the keywords that ours use of JSON Schema.
fn violations(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let is = |kind: &Value| match kind.as_str().unwrap_or_default() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("{at}: the schema says {other:?}"),
    };
    let kinds = match &schema["type"] {
        Value::Null => return,
        Value::Array(kinds) => kinds.clone(),
        one => vec![one.clone()],
    };
    if !kinds.iter().any(is) {
        found.push(format!("{at}: {value} is no {}", schema["type"]));
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        found.push(format!("{at}: {value} is none of {}", schema["enum"]));
    }
    let (number, least, most) = (value.as_f64(), &schema["minimum"], &schema["maximum"]);
    let beyond = number.is_some_and(|n| {
        least.as_f64().is_some_and(|l| n < l) || most.as_f64().is_some_and(|m| n > m)
    });
    if beyond {
        found.push(format!("{at}: {value} is not between {least} and {most}"));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value[name.as_str().unwrap()].is_null() {
            found.push(format!("{at}: {name} is missing"));
        }
    }
    for (name, inner) in value.as_object().into_iter().flatten() {
        let place = format!("{at}.{name}");
        match &schema["properties"][name] {
            Value::Null if schema["additionalProperties"] == false => found.push(place),
            known => violations(known, inner, &place, found),
        }
    }
    let all = value.as_array().map(Vec::as_slice).unwrap_or_default();
    if schema["minItems"].as_u64().is_some_and(|least| (all.len() as u64) < least) {
        found.push(format!("{at}: it is empty"));
    }
    for (n, inner) in all.iter().enumerate() {
        violations(&schema["items"], inner, &format!("{at}[{n}]"), found);
    }
}

/// A reduced form of Grafana's schema, committed here: there is no network in these tests.
#[test]
fn dashboards_are_what_grafana_takes() {
    let schema: Value =
        serde_json::from_str(include_str!("monitoring/dashboard.schema.json")).unwrap();
    for (file, dashboard) in dashboards() {
        let mut found = Vec::new();
        violations(&schema, &dashboard, &file, &mut found);
        assert!(found.is_empty(), "{found:#?}");
        let mut broken = dashboard.clone();
        broken["panels"][0]["gridPos"]["w"] = 25.into();
        broken["panels"][0]["fieldConfg"] = Value::Object(Default::default());
        violations(&schema, &broken, &file, &mut found);
        assert_eq!(found.len(), 2, "the schema sees slips: {found:#?}");
    }
}

/// The uids that users have links to; panels that do not lie over each other.
#[test]
fn dashboards_are_whole() {
    let uids: BTreeSet<String> =
        dashboards().iter().map(|(_, d)| d["uid"].as_str().unwrap().to_owned()).collect();
    let upstream = ["GWoNlLAWz", "YYfp8bOGz", "c4ykUItGk", "xI0I5dpMk", "LIbmpK0Zk"];
    assert_eq!(uids, upstream.map(str::to_owned).into());
    for (file, dashboard) in dashboards() {
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        let variables: Vec<&Value> = variables.iter().map(|v| &v["name"]).collect();
        assert_eq!(variables, ["datasource", "instance"], "{file}");
        assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 36);
        let mut ids = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = &panel["title"];
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{file}: {title}");
            assert!(["stat", "timeseries"].contains(&panel["type"].as_str().unwrap()));
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{file}: {title}");
            let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(place("x") + place("w") <= 24, "{file}: {title}");
            for x in place("x")..place("x") + place("w") {
                for y in place("y")..place("y") + place("h") {
                    assert!(taken.insert((x, y)), "{file}: {title} overlaps another panel");
                }
            }
        }
    }
}

/// Upstream's panel "OVS Up" sums the nodes where it is down.
#[test]
fn bug_ovs_up_counts_what_is_up() {
    let (_, ovs) = dashboards().into_iter().find(|(file, _)| file == "ovs-grafana.json").unwrap();
    let panels = ovs["panels"].as_array().unwrap();
    let up = panels.iter().find(|p| p["title"] == "OVS up").unwrap();
    assert_eq!(up["targets"][0]["expr"], "sum(pinger_ovs_up)");
}

#[test]
fn names_are_found_in_expressions() {
    assert_eq!(
        names(r#"sum(rate(a_b{c="d_e"}[5m])) by (f) / on (g) h_i == 0 or vector(0)"#),
        ["a_b", "h_i"]
    );
}
