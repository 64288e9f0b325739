//! Wanted against seen: patches, conditions, events.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use kube_ovn::{
    api::{Kind, Text},
    controller::publish::{
        Decision, Failure, Judgement, Notice, Part, Wish, classify, conditions, decide, event_name,
        event_object,
    },
    store::{EventType, Presence, Problem, Wanted, watch::Seen},
};
use serde_json::{Value, json};

const NOW: &str = "2025-01-02T03:04:05Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn map<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<Text, Text> {
    entries.into_iter().map(|(k, v)| (k.into(), v.into())).collect()
}

fn seen() -> Seen {
    Seen { uid: "u1".into(), resource_version: "9".into(), ..Seen::default() }
}

fn subnet(status: Value) -> Seen {
    let spec = json!({"provider": "ovn", "gatewayType": "distributed", "private": false});
    Seen { spec: Some((&spec).into()), status: Some((&status).into()), ..seen() }
}

fn wish(kind: Kind, wanted: &[Wanted], problems: Vec<Problem>) -> Wish {
    let mut wish = Wish::new(match kind {
        Kind::Subnet | Kind::IpPool => Judgement::Conditions,
        _ => Judgement::None,
    });
    wanted.iter().for_each(|w| wish.add(w));
    wish.problems = problems;
    wish
}

fn run(kind: Kind, wanted: &[Wanted], seen: &Seen) -> Decision {
    decide(kind, &wish(kind, wanted, vec![]), seen, now())
}

fn problem(reason: &'static str, message: &str) -> Problem {
    Problem { kind: Kind::Subnet, key: "s".into(), reason, message: message.into() }
}

fn annotations<const N: usize>(values: [(&str, Option<&str>); N]) -> Wanted {
    let values = values.into_iter().map(|(k, v)| (k.into(), v.map(Text::from))).collect();
    Wanted::Annotations { kind: Kind::Pod, key: "ns/p".into(), values }
}

#[test]
fn only_what_differs_is_patched_and_only_on_the_same_object() {
    let seen = Seen { annotations: map([("a", "1"), ("gone", "x"), ("foreign", "y")]), ..seen() };
    let wanted = annotations([("a", Some("1")), ("b", Some("2")), ("gone", None), ("never", None)]);
    let decision = run(Kind::Pod, &[wanted], &seen);
    assert_eq!(decision.patches.len(), 1);
    assert_eq!(decision.patches[0].part, Part::Object);
    let expected = json!({"metadata": {"uid": "u1", "annotations": {"b": "2", "gone": null}}});
    assert_eq!(decision.patches[0].body, expected);
    let after = Seen { annotations: map([("a", "1"), ("b", "2"), ("foreign", "y")]), ..seen };
    let wanted = annotations([("a", Some("1")), ("b", Some("2")), ("gone", None)]);
    assert_eq!(run(Kind::Pod, &[wanted], &after), Decision::default());
}

#[test]
fn status_and_spec_are_merge_patches_of_the_difference() {
    let seen = Seen {
        spec: Some((&json!({"cidrBlock": "10.0.0.0/8", "mtu": 1400})).into()),
        status: Some((&json!({"standby": true, "subnets": ["a"], "extra": {"x": 1}})).into()),
        ..seen()
    };
    let status = json!({"standby": true, "subnets": ["a", "b"], "router": "r", "sets": null,
        "extra": {"x": 1, "y": 2}});
    let wanted = [
        Wanted::Status { kind: Kind::Vpc, key: "v".into(), status },
        Wanted::Spec { kind: Kind::Vpc, key: "v".into(), spec: json!({"mtu": 1400, "vpc": "v"}) },
    ];
    let decision = run(Kind::Vpc, &wanted, &seen);
    let bodies: Vec<(Part, Value)> =
        decision.patches.into_iter().map(|patch| (patch.part, patch.body)).collect();
    let status = json!({"status": {"subnets": ["a", "b"], "router": "r", "extra": {"y": 2}}});
    let object = json!({"metadata": {"uid": "u1"}, "spec": {"vpc": "v"}});
    assert_eq!(bodies, [(Part::Status, status), (Part::Object, object)]);
}

#[test]
fn finalizers_are_replaced_only_at_the_version_that_was_read() {
    let ours = "kubeovn.io/kube-ovn-controller";
    let old = "kube-ovn-controller";
    let finalizers = |have: &[&str], presence, deleting| {
        let finalizers = have.iter().map(|f| Text::from(*f)).collect();
        let seen = Seen { finalizers, deleting, ..seen() };
        let wanted = Wanted::Finalizer { kind: Kind::Vpc, key: "v".into(), presence };
        let patch = run(Kind::Vpc, &[wanted], &seen).patches.pop()?.body;
        assert_eq!(patch["metadata"]["resourceVersion"], "9");
        Some(patch["metadata"]["finalizers"].clone())
    };
    assert_eq!(finalizers(&["x"], Presence::Present, false), Some(json!(["x", ours])));
    assert_eq!(finalizers(&["x", ours], Presence::Present, false), None);
    assert_eq!(finalizers(&[old], Presence::Present, false), Some(json!([ours])), "migration");
    assert_eq!(finalizers(&[], Presence::Present, true), None, "refused on deleted objects");
    assert_eq!(finalizers(&[old, "x", ours], Presence::Absent, true), Some(json!(["x"])));
    assert_eq!(finalizers(&["x"], Presence::Absent, true), None);
}

/// `(type, status, reason, message)` of a list.
fn shown(list: &Value) -> Vec<(&str, &str, &str, &str)> {
    let text = |c: &'static str, v: &Value| v[c].as_str().map(|s| s.to_owned()).unwrap_or_default();
    let leak = |s: String| -> &'static str { Box::leak(s.into_boxed_str()) };
    list.as_array()
        .unwrap()
        .iter()
        .map(|v| {
            let field = |name| leak(text(name, v));
            (field("type"), field("status"), field("reason"), field("message"))
        })
        .collect()
}

#[test]
fn conditions_of_a_subnet() {
    let of = |problems: &[Problem], old: &Value| {
        conditions(Kind::Subnet, problems, "ResetLogicalSwitchAclSuccess", old, now())
    };
    let good = of(&[], &Value::Null);
    let done = "ResetLogicalSwitchAclSuccess";
    assert_eq!(
        shown(&good),
        [
            ("Validated", "True", done, ""),
            ("Ready", "True", done, ""),
            ("Error", "Unknown", "Init", "Not Observed"),
        ]
    );
    assert_eq!(good[0]["lastTransitionTime"], NOW);
    let failure = "ValidateLogicalSwitchFailed";
    let bad = of(&[problem("NoActiveGatewayFound", "n"), problem(failure, "cidr 1")], &good);
    assert_eq!(
        shown(&bad),
        [
            ("Validated", "False", failure, "cidr 1"),
            ("Ready", "False", failure, "cidr 1"),
            ("Error", "True", failure, "cidr 1"),
        ]
    );
    let gateway = of(&[problem("NoActiveGatewayFound", "n")], &bad);
    assert_eq!(
        shown(&gateway)[..2],
        [
            ("Validated", "True", "NoActiveGatewayFound", ""),
            ("Ready", "False", "NoActiveGatewayFound", "n"),
        ]
    );
}

/// Upstream BUG: Error is never set back.
#[test]
fn error_is_cleared_when_the_subnet_is_fine_again() {
    let bad = [problem("ValidateLogicalSwitchFailed", "m")];
    let old = conditions(Kind::Subnet, &bad, "S", &Value::Null, now());
    let list = conditions(Kind::Subnet, &[], "S", &old, now());
    assert_eq!(shown(&list)[2], ("Error", "False", "S", ""));
    let pool = conditions(Kind::IpPool, &[], "UpdateIPAMSucceeded", &old, now());
    assert_eq!(shown(&pool)[1], ("Error", "False", "UpdateIPAMSucceeded", ""));
}

#[test]
fn no_ready_gateway_is_a_state_and_not_an_error() {
    let list = conditions(Kind::Subnet, &[problem("NoReadyGateway", "")], "S", &Value::Null, now());
    assert_eq!(shown(&list)[1], ("Ready", "False", "NoReadyGateway", ""));
    assert_eq!(shown(&list)[2].1, "Unknown");
}

/// Upstream's Vpc and SecurityGroup have only Events, which are gone after an hour.
#[test]
fn problems_of_vpcs_and_groups_stay_in_their_conditions() {
    for (kind, reason) in
        [(Kind::Vpc, "ReconcileVpcSuccess"), (Kind::SecurityGroup, "ReconcileSecurityGroupSuccess")]
    {
        let publish = |problems: &[Problem], old: &Value| {
            let list = conditions(kind, problems, reason, old, now());
            let told = |c: &Value| {
                let field = |name: &str| c[name].as_str().unwrap_or_default().to_owned();
                format!("{}={} {}", field("type"), field("status"), field("reason"))
            };
            let all: Vec<String> = list.as_array().unwrap().iter().map(told).collect();
            (list, all.join(", "))
        };
        let (list, text) = publish(&[problem("Broken", "field: remedy")], &Value::Null);
        assert_eq!(text, "Ready=False Broken, Error=True Broken");
        let (_, text) = publish(&[], &list);
        assert_eq!(text, format!("Ready=True {reason}, Error=False {reason}"));
    }
}

#[test]
fn unchanged_conditions_keep_their_times_and_write_nothing() {
    let old = conditions(Kind::Subnet, &[], "ResetLogicalSwitchAclSuccess", &Value::Null, now());
    // Upstream's order, another time, and a type we do not know.
    let mut turned = old.as_array().unwrap().clone();
    turned.reverse();
    turned.iter_mut().for_each(|c| c["lastUpdateTime"] = json!("2020-01-01T00:00:00Z"));
    turned.push(json!({"type": "Other", "status": "True"}));
    let seen = subnet(json!({"conditions": turned}));
    let decision = decide(Kind::Subnet, &wish(Kind::Subnet, &[], vec![]), &seen, now());
    assert_eq!(decision.patches, []);
    assert_eq!(decision.notices, []);
}

#[test]
fn a_restart_does_not_repeat_events_of_known_conditions() {
    let failed = vec![problem("ValidateLogicalSwitchFailed", "m")];
    let wish = wish(Kind::Subnet, &[], failed.clone());
    let first = decide(Kind::Subnet, &wish, &subnet(json!({})), now());
    assert_eq!(first.notices.len(), 1);
    assert_eq!(first.notices[0].event, EventType::Warning);
    let list = conditions(Kind::Subnet, &failed, "", &Value::Null, now());
    let again = decide(Kind::Subnet, &wish, &subnet(json!({"conditions": list})), now());
    assert_eq!((again.notices, again.patches), (vec![], vec![]));
}

#[test]
fn a_subnet_that_goes_away_keeps_its_conditions() {
    let seen = Seen { deleting: true, ..subnet(json!({})) };
    let decision = decide(Kind::Subnet, &wish(Kind::Subnet, &[], vec![]), &seen, now());
    assert_eq!(decision.patches, []);
}

#[test]
fn ready_by_kind_of_subnet() {
    for (spec, reason) in [
        (json!({"provider": "x.ns"}), "SetNonOvnSubnetSuccess"),
        (json!({"gatewayType": "centralized"}), "ReconcileCentralizedGatewaySuccess"),
        (json!({"private": true}), "SetPrivateLogicalSwitchSuccess"),
        (json!({}), "ResetLogicalSwitchAclSuccess"),
    ] {
        let seen = Seen { spec: Some((&spec).into()), ..seen() };
        let decision = decide(Kind::Subnet, &wish(Kind::Subnet, &[], vec![]), &seen, now());
        let list = &decision.patches[0].body["status"]["conditions"];
        assert_eq!(shown(list)[1], ("Ready", "True", reason, ""), "{spec}");
        assert_eq!(decision.notices[0].reason, reason);
        assert_eq!(decision.notices[0].event, EventType::Normal);
    }
}

#[test]
fn events_name_their_object_as_client_go_does() {
    let notice = Notice { reason: "R", message: "m".into(), event: EventType::Warning };
    let pod = (Kind::Pod, Text::from("ns/p"));
    let event = event_object(&pod, &seen(), &notice, "kube-ovn-controller", now()).unwrap();
    assert_eq!(event.metadata.namespace.as_deref(), Some("ns"));
    assert_eq!(event.involved_object.uid.as_deref(), Some("u1"));
    assert_eq!(event.source.unwrap().component.as_deref(), Some("kube-ovn-controller"));
    assert_eq!(event.metadata.name, Some(event_name(&pod, &notice)), "the same after a restart");
    let node = (Kind::Node, Text::from("n1"));
    let event = event_object(&node, &seen(), &notice, "c", now()).unwrap();
    assert_eq!(event.involved_object.uid.as_deref(), Some("n1"), "kubectl describe looks for that");
    assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
    assert!(event_object(&(Kind::Chassis, "c".into()), &seen(), &notice, "c", now()).is_none());
    let long = (Kind::Subnet, Text::from("x".repeat(300)));
    assert!(event_name(&long, &notice).len() <= 253);
}

#[test]
fn failures_by_answer() {
    let api = |code: u16, message: &str| {
        let status = json!({"code": code, "message": message, "reason": "", "status": "Failure"});
        kube::Error::Api(Box::new(serde_json::from_value(status).unwrap()))
    };
    for (code, message, expected) in [
        (404, "", Failure::Gone),
        (409, "", Failure::Conflict),
        (422, "metadata.uid: Invalid value: field is immutable", Failure::Gone),
        (422, "spec.cidrBlock: Required", Failure::Fatal),
        (400, "", Failure::Fatal),
        (403, "", Failure::Retry),
        (429, "", Failure::Retry),
        (503, "", Failure::Retry),
    ] {
        assert_eq!(classify(&api(code, message)), expected, "{code} {message}");
    }
    let network = kube::Error::Service(Box::new(std::io::Error::other("reset")));
    assert_eq!(classify(&network), Failure::Retry);
}
