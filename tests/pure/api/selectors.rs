//! Label selectors.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube_ovn::api::{Map, parse::parse_subnet, selectors::parse_selector};
use serde_json::{Value, json};

use super::{expect_finding, settings, subnet};

fn selector(raw: Value) -> LabelSelector {
    serde_json::from_value(raw).unwrap()
}

fn expression(key: &str, operator: &str, values: &[&str]) -> LabelSelector {
    selector(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}))
}

fn labels(pairs: &[(&str, &str)]) -> Map {
    pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

#[test]
fn matching() {
    let web = labels(&[("app", "web"), ("tier", "front")]);
    for (raw, matches) in [
        (selector(json!({})), true),
        (selector(json!({"matchLabels": {"app": "web"}})), true),
        (selector(json!({"matchLabels": {"app": "db"}})), false),
        (expression("app", "In", &["db", "web"]), true),
        (expression("app", "NotIn", &["web"]), false),
        (expression("none", "NotIn", &["web"]), true),
        (expression("none", "In", &["web"]), false),
        (expression("app", "Exists", &[]), true),
        (expression("app", "DoesNotExist", &[]), false),
    ] {
        assert_eq!(parse_selector(&raw).unwrap().matches(&web), matches, "{raw:?}");
    }
}

#[test]
fn refused() {
    for (raw, part) in [
        (expression("app", "Gt", &["1"]), "\"Gt\""),
        (expression("app", "", &[]), "unknown"),
        (expression("app", "in", &["a"]), "\"in\""),
        (expression("app", "In", &[]), "needs values"),
        (expression("app", "Exists", &["a"]), "takes no values"),
        (expression("", "Exists", &[]), "no key"),
    ] {
        assert!(parse_selector(&raw).unwrap_err().to_string().contains(part), "{part}");
    }
}

#[test]
fn of_a_subnet() {
    let mut raw = subnet("s1", "10.16.0.0/16");
    raw.spec.namespace_selectors =
        vec![expression("app", "Exists", &[]), expression("app", "Like", &["a"])];
    let found = parse_subnet(&raw, &settings()).unwrap_err();
    expect_finding(&found, &["spec.namespaceSelectors[1]", "Like"]);
}
