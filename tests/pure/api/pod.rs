//! Pods and their annotations.

use k8s_openapi::api::core::v1 as core;
use kube_ovn::{
    api::{
        Invalid, Pod, PodLife,
        parse::{PoolWish, fixed_addresses, is_ours, parse_pod, parse_pool_wish, reason},
    },
    net::DualStack,
};
use serde_json::{Value, json};

use super::expect_finding;

fn parsed(change: Value) -> Pod {
    let mut raw = json!({"metadata": {"name": "a", "namespace": "d"}, "spec": {"containers": []}});
    merge(&mut raw, change);
    parse_pod(&serde_json::from_value::<core::Pod>(raw).unwrap())
}

fn merge(into: &mut Value, from: Value) {
    match from {
        Value::Object(map) => map.into_iter().for_each(|(k, v)| merge(&mut into[k.as_str()], v)),
        other => *into = other,
    }
}

fn life(change: Value) -> PodLife {
    parsed(change).life
}

fn findings(annotations: Value) -> Vec<Invalid> {
    let found = parsed(json!({"metadata": {"annotations": annotations}})).invalid;
    assert!(found.iter().all(|f| f.reason == reason::POD));
    found
}

#[test]
fn alive() {
    assert_eq!(life(json!({})), PodLife::Alive);
    assert_eq!(life(json!({"status": {"phase": "Running"}})), PodLife::Alive);
    let succeeded = |policy: &str| {
        life(json!({"spec": {"restartPolicy": policy}, "status": {"phase": "Succeeded"}}))
    };
    assert_eq!(succeeded("Never"), PodLife::Ended);
    assert_eq!(succeeded("OnFailure"), PodLife::Ended);
    assert_eq!(succeeded("Always"), PodLife::Alive);
    let failed = |policy: &str, reason: &str| {
        life(json!({
            "spec": {"restartPolicy": policy},
            "status": {"phase": "Failed", "reason": reason},
        }))
    };
    assert_eq!(failed("Never", ""), PodLife::Ended);
    // Kubelets refuse, evict and shut down pods of every policy, and none of them starts again.
    for reason in ["", "Evicted", "OutOfcpu", "NodeShutdown", "UnexpectedAdmissionError"] {
        assert_eq!(failed("OnFailure", reason), PodLife::Ended);
        assert_eq!(failed("Always", reason), PodLife::Ended);
    }
}

#[test]
fn terminating_until_ended_or_gone() {
    let deleted = json!({"deletionTimestamp": "2001-01-01T00:00:00Z"});
    assert_eq!(
        life(json!({"metadata": deleted, "status": {"phase": "Running"}})),
        PodLife::Terminating,
        "long past the grace period, but its node may be out of reach"
    );
    let ended = json!({
        "metadata": {"deletionTimestamp": "2001-01-01T00:00:00Z"},
        "spec": {"restartPolicy": "Never"},
        "status": {"phase": "Succeeded"},
    });
    assert_eq!(life(ended), PodLife::Ended);
}

#[test]
fn fields() {
    let pod = parsed(json!({
        "metadata": {
            "uid": "u",
            "labels": {"app": "x"},
            "annotations": {
                "ovn.kubernetes.io/allocated": "true",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
            },
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Other", "name": "o", "uid": "1"},
                {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "s", "uid": "2", "controller": true},
            ],
        },
        "spec": {"nodeName": "n1"},
    }));
    assert_eq!((&*pod.namespace, &*pod.name, &*pod.uid), ("d", "a", "u"));
    assert_eq!(pod.node.as_deref(), Some("n1"));
    assert_eq!(pod.owner.map(|o| o.kind.to_string()), Some("StatefulSet".into()));
    assert_eq!(pod.annotations.len(), 1);
    assert_eq!(pod.labels.len(), 1);
}

#[test]
fn annotations_of_ours() {
    for key in [
        "ovn.kubernetes.io/anything",
        "net1.default.ovn.kubernetes.io/ip_address",
        "net1.default.kubernetes.io/ip_pool",
        "net1.provider-network.kubernetes.io/err_mesg",
        "k8s.v1.cni.cncf.io/networks",
        "v1.multus-cni.io/default-network",
        "kubevirt.io/migrationJobName",
    ] {
        assert!(is_ours(key), "{key}");
    }
    for key in [
        "kubectl.kubernetes.io/restartedAt",
        "node.alpha.kubernetes.io/ttl",
        "container.apparmor.security.beta.kubernetes.io/c",
        "volumes.kubernetes.io/controller-managed-attach-detach",
        "kubevirt.io/domain",
        "cni.projectcalico.org/podIP",
        "",
    ] {
        assert!(!is_ours(key), "{key}");
    }
}

#[test]
fn good_annotations() {
    let good = findings(json!({
        "ovn.kubernetes.io/ip_address": "10.16.0.5,fd00::5",
        "ovn.kubernetes.io/cidr": "10.16.0.0/16,fd00::/112",
        "ovn.kubernetes.io/mac_address": "00:00:00:53:6B:B6",
        "ovn.kubernetes.io/ip_pool": "10.16.0.5,fd00::5;10.16.0.6,fd00::6",
        "ovn.kubernetes.io/ingress_rate": "10",
        "net1.d.ovn.kubernetes.io/ip_pool": "pool-of-mine",
        "net1.d.ovn.kubernetes.io/ip_address": "",
    }));
    assert!(good.is_empty(), "{good:?}");
}

#[test]
fn bad_annotations() {
    for (suffix, value) in [
        ("ip_address", "10.16.0"),
        ("ip_address", "10.16.0.5,10.16.0.6"),
        ("ip_address", "10.16.0.5/33"),
        ("ip_address", "10.17.0.5"),
        ("mac_address", "00:00:00:53:6b"),
        ("mac_address", "x"),
        ("ip_pool", "10.16.0.5,x"),
        ("ip_pool", "10.16.0.5;x"),
        ("ip_pool", "10.16.0.5,10.17.0.5"),
        ("ingress_rate", "1.5"),
        ("egress_rate", "10M"),
        ("egress_rate", "-1"),
    ] {
        let key = format!("ovn.kubernetes.io/{suffix}");
        let found = findings(json!({&key: value, "ovn.kubernetes.io/cidr": "10.16.0.0/16"}));
        expect_finding(&found, &[&key, &format!("{value:?}")]);
    }
    let found = findings(json!({"ovn.kubernetes.io/cidr": "10.16"}));
    expect_finding(&found, &["ovn.kubernetes.io/cidr", "10.16"]);
}

/// Upstream checked the default provider only; for others the allocation failed without a word.
#[test]
fn trap_every_provider_is_checked() {
    let key = "net1.default.ovn.kubernetes.io/mac_address";
    expect_finding(&findings(json!({key: "x"})), &[key, "\"x\""]);
}

#[test]
fn host_network_pods_have_no_findings() {
    let pod = parsed(json!({
        "metadata": {"annotations": {"ovn.kubernetes.io/ip_address": "x"}},
        "spec": {"hostNetwork": true},
    }));
    assert!(pod.host_network && pod.invalid.is_empty());
}

/// `ip/prefix` passed upstream's check and failed in its allocation.
#[test]
fn trap_fixed_address_with_prefix() {
    assert!(findings(json!({"ovn.kubernetes.io/ip_address": "10.16.0.5/16"})).is_empty());
    for (text, read) in [
        ("10.16.0.5/16", "10.16.0.5"),
        ("fd00::5/64,10.16.0.5", "10.16.0.5,fd00::5"),
        (" 10.16.0.5 , fd00::5", "10.16.0.5,fd00::5"),
    ] {
        assert_eq!(fixed_addresses(text).unwrap().to_string(), read);
    }
    for text in ["", ",", "10.16.0.5/", "10.16.0.5/99", "/16", "10.16.0.5,10.16.0.6"] {
        assert!(fixed_addresses(text).is_err(), "{text:?}");
    }
}

#[test]
fn pool_forms() {
    let list = |texts: &[&str]| {
        PoolWish::Addresses(texts.iter().map(|t| DualStack::parse_addresses(t).unwrap()).collect())
    };
    for (text, wish) in [
        ("pool-1", PoolWish::Pool("pool-1".into())),
        ("10.0.0.1", list(&["10.0.0.1"])),
        ("10.0.0.1,10.0.0.2", list(&["10.0.0.1", "10.0.0.2"])),
        ("10.0.0.1, 10.0.0.2 ,10.0.0.3", list(&["10.0.0.1", "10.0.0.2", "10.0.0.3"])),
        ("10.0.0.1;10.0.0.2", list(&["10.0.0.1", "10.0.0.2"])),
        ("10.0.0.1;", list(&["10.0.0.1"])),
        ("10.0.0.1,fd00::1", list(&["10.0.0.1,fd00::1"])),
        ("fd00::1,10.0.0.1", list(&["10.0.0.1,fd00::1"])),
        ("10.0.0.1,fd00::1;10.0.0.2,fd00::2", list(&["10.0.0.1,fd00::1", "10.0.0.2,fd00::2"])),
    ] {
        assert_eq!(parse_pool_wish(text).unwrap(), wish, "{text}");
    }
    // Upstream's webhook took the `;` form for an unknown pool name or for malformed.
    for text in ["pool-1,pool-2", "10.0.0.1,x", "10.0.0.1,10.0.0.2;10.0.0.3"] {
        assert!(parse_pool_wish(text).is_err(), "{text}");
    }
}
