//! What comes from outside and has no test of this kind beside its parser: admission requests,
//! command lines, reports of OVN's programs. No panic, whatever it is.

use kube_ovn::{
    cli::{self, explain_policy, packet, probe, trace_text},
    webhook::review::{Facts, Request, Stop, review},
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::support::objects::settings;

const RESOURCES: &[&str] = &[
    "pods",
    "deployments",
    "cronjobs",
    "subnets",
    "vpcs",
    "ips",
    "vips",
    "vpc-nat-gateways",
    "iptables-eips",
    "iptables-dnat-rules",
    "iptables-snat-rules",
    "iptables-fip-rules",
    "ovn-eips",
    "ovn-dnat-rules",
    "ovn-snat-rules",
    "ovn-fips",
];

/// Names that reviews look for, so that random objects get past the first question.
const KEYS: &[&str] = &[
    "metadata",
    "name",
    "namespace",
    "annotations",
    "labels",
    "spec",
    "status",
    "template",
    "jobTemplate",
    "ownerReferences",
    "kind",
    "subnet",
    "vpc",
    "cidrBlock",
    "gateway",
    "namespaces",
    "excludeIps",
    "v4ip",
    "v6ip",
    "lanIp",
    "eip",
    "ovnEip",
    "natGwDp",
    "externalPort",
    "internalPort",
    "internalIp",
    "internalCIDR",
    "protocol",
    "ipName",
    "ready",
    "redo",
    "ovn.kubernetes.io/ip_address",
    "ovn.kubernetes.io/ip_pool",
];

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[0-9a-f:./,-]{0,20}".prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(json!("10.16.0.0/16")),
        Just(json!("ovn-default")),
    ]
}

fn object() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 48, 8, |inner| {
        let key = prop::sample::select(KEYS);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..8).prop_map(|fields| {
                let named = fields.into_iter().map(|(name, value)| (name.to_owned(), value));
                Value::Object(named.collect::<Map<_, _>>())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn no_admission_request_panics_or_asks_for_ever(
        resource in prop::sample::select(RESOURCES),
        operation in prop::sample::select(&["CREATE", "UPDATE", "DELETE", "CONNECT", ""][..]),
        object in object(), old in object(), world in object(),
    ) {
        let raw = json!({"operation": operation, "resource": {"resource": resource},
            "name": "a", "namespace": "ns", "object": object, "oldObject": old});
        let request = Request::parse(&raw).expect("a request");
        let (mut facts, mut decided) = (Facts::default(), false);
        for _ in 0..32 {
            match review(&request, &facts, &settings()) {
                Err(Stop::Need(question)) => drop(facts.0.insert(question, vec![world.clone()])),
                _ => { decided = true; break }
            }
        }
        prop_assert!(decided, "it asks for ever");
        let _ = Request::parse(&world);
    }

    #[test]
    fn no_command_line_panics(
        words in prop::collection::vec(
            prop_oneof![
                prop::sample::select(&["nb", "sb", "kick", "status", "trace", "ipam", "plan", "-f",
                    "-o", "json", "--bundle", "--", "diagnose", "subnet", "nbctl", "completion",
                    "explain", "--from", "--port", "tcp/80", "arp", "reply", "icmp"][..])
                    .prop_map(str::to_owned),
                "[0-9a-fA-F:./-]{0,20}", ".{0,10}",
            ], 0..6),
    ) {
        let _ = cli::command().try_get_matches_from(
            std::iter::once("kubectl-ko".to_owned()).chain(words.iter().cloned()));
        let _ = cli::complete::candidates(&words);
        let _ = packet::parse_request(&words);
        for word in &words {
            let _ = packet::parse_sender(word);
            let _ = probe::parse_target(word);
            let _ = explain_policy::parse_question(word, "b", word);
        }
    }

    #[test]
    fn no_report_panics(
        lines in prop::collection::vec(
            prop_oneof![
                Just("ingress(dp=\"s\", inport=\"a\")".to_owned()),
                Just("egress(dp=\"s\", inport=\"a\", outport=\"b\")".to_owned()),
                Just("    8. ls_in_acl: (northd.c:1), priority 2001, uuid 00000000".to_owned()),
                Just("Servers:".to_owned()),
                Just("    85d6 (85d6 at tcp:[::1]:6643) next_index= last msg ms ago".to_owned()),
                Just("/* output to \"b\", type \"\" */".to_owned()),
                ".{0,60}",
            ], 0..20),
    ) {
        let text = lines.join("\n");
        let walk = trace_text::parse_walk(&text);
        let _ = (walk.verdicts(), walk.drawn("a", "b"));
        let _ = explain_policy::parse_met(&text);
        let _ = probe::parse_outcomes(&text);
        let _ = kube_ovn::central::status::ClusterStatus::parse(&text);
        let _ = kube_ovn::monitor::raft::Raft::parse(&text);
    }
}
