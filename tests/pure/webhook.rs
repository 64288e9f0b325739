//! Admission without an API server: a request and facts in, a verdict or a question out.

use std::collections::BTreeMap;

use kube_ovn::webhook::{
    certificate,
    review::{Facts, Question, Request, Stop, review},
    serve::{Verdict, answer, path},
};
use serde_json::{Value, json};

use crate::support::objects::settings;

/// Objects of the cluster: plural -> objects.
type World = BTreeMap<&'static str, Vec<Value>>;

fn request(operation: &str, resource: &str, object: Value, old: Value) -> Request {
    let subject = if object.is_null() { &old } else { &object };
    let name = subject["metadata"]["name"].clone();
    Request::parse(&json!({"operation": operation, "resource": {"resource": resource},
        "name": name, "namespace": "ns", "object": object, "oldObject": old}))
    .unwrap()
}

fn find(world: &World, question: &Question) -> Vec<Value> {
    let named = |plural: &str, name: &str| {
        let all = world.get(plural).cloned().unwrap_or_default();
        all.into_iter().filter(|o| o["metadata"]["name"] == name).collect()
    };
    match question {
        Question::One(plural, name) => named(plural, name),
        Question::Config(name) => named("configmaps", name),
        Question::All(plural, labels) => {
            let mut all = world.get(plural).cloned().unwrap_or_default();
            if let Some((key, value)) = labels.split_once('=') {
                all.retain(|o| o["metadata"]["labels"][key] == value);
            }
            all
        }
    }
}

/// `ok`, or code and message.
fn decide(request: &Request, world: &World) -> String {
    let mut facts = Facts::default();
    for _ in 0..16 {
        match review(request, &facts, &settings()) {
            Ok(()) => return "ok".to_owned(),
            Err(Stop::Refused { code, message }) => return format!("{code} {message}"),
            Err(Stop::Need(question)) => {
                let answer = find(world, &question);
                facts.0.insert(question, answer);
            }
        }
    }
    panic!("asks for ever");
}

fn create(resource: &str, object: Value, world: &World) -> String {
    decide(&request("CREATE", resource, object, Value::Null), world)
}

fn update(resource: &str, old: Value, object: Value, world: &World) -> String {
    decide(&request("UPDATE", resource, object, old), world)
}

fn delete(resource: &str, old: Value, world: &World) -> String {
    decide(&request("DELETE", resource, Value::Null, old), world)
}

#[track_caller]
fn says(verdict: String, code: u16, words: &[&str]) {
    assert!(verdict.starts_with(&code.to_string()), "{verdict}");
    for word in words {
        assert!(verdict.contains(word), "{word} is not in {verdict}");
    }
}

fn subnet(name: &str, cidr: &str) -> Value {
    json!({"apiVersion": "kubeovn.io/v1", "kind": "Subnet", "metadata": {"name": name},
        "spec": {"cidrBlock": cidr, "vpc": "ovn-cluster", "provider": "ovn"}})
}

fn ip(name: &str, subnet: &str, v4: &str, pod: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"ovn.kubernetes.io/subnet": subnet}},
        "spec": {"subnet": subnet, "v4IpAddress": v4, "podName": pod, "namespace": "ns"}})
}

fn named(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

fn world() -> World {
    let config = |name: &str, key: &str, value: &str| json!({"metadata": {"name": name}, "data": {key: value}});
    World::from([
        (
            "subnets",
            vec![
                subnet("ovn-default", "10.16.0.0/16"),
                subnet("ovn-vpc-external-network", "172.19.0.0/24"),
            ],
        ),
        ("vpcs", vec![named("ovn-cluster", json!({})), named("v", json!({"namespaces": ["a"]}))]),
        ("ips", vec![ip("p1.ns", "ovn-default", "10.16.0.15", "p1")]),
        ("ippools", vec![named("pool", json!({}))]),
        (
            "iptables-eips",
            vec![json!({"metadata": {"name": "eip",
            "labels": {"ovn.kubernetes.io/vpc-nat-gw-name": "gw"}}, "spec": {}})],
        ),
        ("ovn-eips", vec![named("oeip", json!({}))]),
        (
            "configmaps",
            vec![
                config("ovn-vpc-nat-config", "image", "x"),
                config("ovn-vpc-nat-gw-config", "enable-vpc-nat-gw", "true"),
            ],
        ),
    ])
}

fn pod(name: &str, annotations: &[(&str, &str)]) -> Value {
    let annotations: BTreeMap<String, &str> =
        annotations.iter().map(|(k, v)| (format!("ovn.kubernetes.io/{k}"), *v)).collect();
    json!({"metadata": {"name": name, "annotations": annotations}})
}

/// The example of the manual's chapter 3.10.
#[test]
fn a_taken_address_is_refused() {
    let refused = create("pods", pod("p2", &[("ip_address", "10.16.0.15")]), &world());
    says(refused, 403, &["ip_address", "10.16.0.15", "taken by IP \"p1.ns\""]);
    for (name, annotations) in [
        ("p1", &[("ip_address", "10.16.0.15")][..]),
        ("p2", &[("ip_address", "10.16.0.16")]),
        ("p2", &[("ip_address", "10.16.0.15"), ("logical_switch", "other")]),
        ("p2", &[]),
    ] {
        assert_eq!(
            create("pods", pod(name, annotations), &world()),
            "ok",
            "{name} {annotations:?}"
        );
    }
    let mut migrating = pod("p2", &[("ip_address", "10.16.0.15")]);
    migrating["metadata"]["annotations"]["kubevirt.io/migrationJobName"] = "j".into();
    assert_eq!(create("pods", migrating, &world()), "ok");
    let mut machine = pod("virt-launcher-x", &[("ip_address", "10.16.0.15")]);
    machine["metadata"]["ownerReferences"] =
        json!([{"kind": "VirtualMachineInstance", "name": "p1"}]);
    assert_eq!(create("pods", machine, &world()), "ok");
}

#[test]
fn annotations_that_say_nothing_sensible() {
    for (key, value, word) in [
        ("ip_address", "10.16.0", "not a valid ip_address"),
        ("ip_address", "10.16.0.0/40", "not a valid ip_address"),
        ("ip_pool", "10.16.0.2,x", "not a valid address"),
        ("ip_pool", "nowhere", "ippool not found"),
    ] {
        let refused = create("pods", pod("p", &[(key, value)]), &world());
        assert!(refused.contains(word), "{value}: {refused}");
    }
    let many = pod(
        "p",
        &[
            ("ip_address", "10.17.0.2"),
            ("cidr", "10.16.0.0/16"),
            ("mac_address", "zz"),
            ("ingress_rate", "fast"),
        ],
    );
    says(create("pods", many, &world()), 400, &["not in cidr", "mac_address", "ingress_rate"]);
}

/// Upstream compares every address of a list, so that the second pod of a Deployment is refused,
/// and takes lists with semicolons for the name of a pool.
#[test]
fn bug_pools_of_addresses_admit_as_long_as_one_is_free() {
    for pool in ["10.16.0.15,10.16.0.16,10.16.0.17", "10.16.0.15;10.16.0.16", "pool"] {
        assert_eq!(create("pods", pod("p2", &[("ip_pool", pool)]), &world()), "ok", "{pool}");
    }
    let refused = create("pods", pod("p2", &[("ip_pool", "10.16.0.15;10.16.0.15")]), &world());
    says(refused, 403, &["taken"]);
    let template = pod("", &[("ip_pool", "nowhere")]);
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"template": template}});
    says(create("deployments", deployment, &world()), 403, &["ippool not found"]);
    let job = json!({"spec": {"jobTemplate": {"spec": {"template": pod("", &[("ip_pool", "nowhere")])}}}});
    says(create("cronjobs", job, &world()), 403, &["ippool not found"]);
}

#[test]
fn subnets() {
    let world = world();
    assert_eq!(create("subnets", subnet("s", "10.17.0.0/16"), &world), "ok");
    says(create("subnets", subnet("s", "10.16.5.0/24"), &world), 409, &["overlaps", "ovn-default"]);
    says(create("subnets", subnet("s", "10.17.0.0"), &world), 403, &["spec.cidrBlock"]);
    says(create("subnets", subnet("v", "10.17.0.0/16"), &world), 400, &["different names"]);
    let mut foreign = subnet("s", "10.17.0.0/16");
    foreign["spec"]["vpc"] = "v".into();
    foreign["spec"]["namespaces"] = json!(["b"]);
    says(create("subnets", foreign, &world), 400, &["spec.namespaces"]);
    let mut used = subnet("s", "10.17.0.0/16");
    used["spec"]["gateway"] = "10.17.0.1".into();
    used["status"] = json!({"v4usingIPs": 2, "v6usingIPs": 0});
    let mut moved = used.clone();
    moved["spec"]["gateway"] = "10.17.0.2".into();
    says(update("subnets", used.clone(), moved, &world), 403, &["gateway", "in use"]);
    says(delete("subnets", used.clone(), &world), 403, &["cannot delete while IPs are in use"]);
    // A wrong object may still lose its finalizer.
    let mut broken = subnet("s", "10.16.0.0/24");
    assert_eq!(update("subnets", broken.clone(), broken.clone(), &world), "ok");
    broken["status"] = json!({"v4usingIPs": 0});
    assert_eq!(delete("subnets", broken, &world), "ok");
}

#[test]
fn vpcs() {
    let mut world = world();
    assert_eq!(create("vpcs", named("w", json!({})), &world), "ok");
    says(create("vpcs", named("ovn-default", json!({})), &world), 400, &["different names"]);
    let route =
        json!({"staticRoutes": [{"cidr": "x", "nextHopIP": "10.0.0.1", "policy": "policyDst"}]});
    says(create("vpcs", named("w", route), &world), 400, &["staticRoutes[0].cidr"]);
    let used = json!({"metadata": {"name": "v"}, "status": {"subnets": ["a"]}});
    says(delete("vpcs", used, &world), 403, &["subnets a"]);
    world.insert("ovn-fips", vec![json!({"metadata": {"name": "f"}, "spec": {"vpc": "v"}})]);
    says(delete("vpcs", named("v", json!({})), &world), 403, &["ovn-fips", "\"f\""]);
    assert_eq!(delete("vpcs", named("w", json!({})), &world), "ok");
}

#[test]
fn addresses() {
    let world = world();
    let vip = |spec: Value| named("vip", spec);
    assert_eq!(
        create("vips", vip(json!({"subnet": "ovn-default", "v4ip": "10.16.0.9"})), &world),
        "ok"
    );
    for (spec, word) in [
        (json!({}), "spec.subnet"),
        (json!({"subnet": "none"}), "not found"),
        (json!({"subnet": "ovn-default", "v4ip": "10.17.0.9"}), "outside"),
        (json!({"subnet": "ovn-default", "v4ip": "x"}), "spec.v4ip"),
        (json!({"subnet": "ovn-default", "v6ip": "FD00::1"}), "lower case"),
        (json!({"subnet": "ovn-default", "v6ip": "10.16.0.9"}), "other family"),
    ] {
        says(create("vips", vip(spec), &world), 400, &[word]);
    }
    let mut old = vip(json!({"subnet": "ovn-default"}));
    old["status"] = json!({"mac": "00:00:00:00:00:01"});
    let changed = vip(json!({"subnet": "ovn-default", "v4ip": "10.16.0.9"}));
    says(update("vips", old, changed, &world), 400, &["is assigned"]);
}

/// Upstream has these handlers, but its configuration never calls them.
#[test]
fn bug_ips_and_ovn_nat_are_checked() {
    let manifest = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/webhook.yaml"),
    )
    .unwrap();
    for plural in ["ips", "ovn-eips", "ovn-fips", "ovn-snat-rules", "ovn-dnat-rules"] {
        assert!(manifest.contains(plural), "{plural}");
    }
    let world = world();
    let record = ip("a.ns", "ovn-default", "10.16.0.20", "a");
    assert_eq!(create("ips", record.clone(), &world), "ok");
    for (field, value, word) in [
        ("v4IpAddress", "10.99.0.1", "outside"),
        ("podType", "Deployment", "podType"),
        ("podName", "b", "cannot change"),
        ("macAddress", "00:00:00:00:00:02", "ok"),
    ] {
        let mut changed = record.clone();
        changed["spec"][field] = value.into();
        let verdict = update("ips", record.clone(), changed, &world);
        assert!(verdict.contains(word), "{field}: {verdict}");
    }
    let rule = |spec: Value| named("r", spec);
    let dnat = json!({"ovnEip": "oeip", "ipName": "a.ns", "externalPort": "80",
        "internalPort": "8080", "protocol": "tcp"});
    assert_eq!(create("ovn-dnat-rules", rule(dnat.clone()), &world), "ok");
    for (field, value, word) in [
        ("ovnEip", "none", "not found"),
        ("ipName", "", "name the target"),
        ("externalPort", "0", "externalPort"),
        ("internalPort", "70000", "internalPort"),
        ("protocol", "icmp", "protocol"),
    ] {
        let mut spec = dnat.clone();
        spec[field] = value.into();
        says(create("ovn-dnat-rules", rule(spec), &world), 400, &[word]);
    }
    for (spec, word) in [
        (json!({"ovnEip": "oeip", "vpcSubnet": "s", "ipName": "i"}), "exclude"),
        (json!({"ovnEip": "oeip", "vpc": "v"}), "needs v4IpCidr"),
        (json!({"ovnEip": "oeip", "v4IpCidr": "10.0.0.0/24"}), "must be set"),
        (json!({"ovnEip": "oeip"}), "name the source"),
    ] {
        says(create("ovn-snat-rules", rule(spec), &world), 400, &[word]);
    }
    let mut ready = rule(dnat.clone());
    ready["status"] = json!({"ready": true});
    let mut changed = ready.clone();
    changed["spec"]["externalPort"] = "81".into();
    says(update("ovn-dnat-rules", ready, changed, &world), 400, &["is ready"]);
    let mut eip = named("oeip", json!({}));
    eip["status"] = json!({"ready": true});
    let mut world = world;
    world.insert("ovn-fips", vec![named("f", json!({"ovnEip": "oeip"}))]);
    says(delete("ovn-eips", eip, &world), 400, &["still used by ovn-fips"]);
}

#[test]
fn nat_gateways() {
    let world = world();
    let gateway = |spec: Value| named("gw", spec);
    let good = json!({"vpc": "v", "subnet": "ovn-default", "lanIp": "10.16.0.254"});
    assert_eq!(create("vpc-nat-gateways", gateway(good.clone()), &world), "ok");
    for (field, value, word) in [
        ("vpc", json!("none"), "not found"),
        ("lanIp", json!("10.17.0.1"), "outside"),
        ("qosPolicy", json!("none"), "not found"),
        ("tolerations", json!([{"operator": "Maybe"}]), "operator"),
        ("tolerations", json!([{"effect": "Never"}]), "effect"),
    ] {
        let mut spec = good.clone();
        spec[field] = value;
        says(create("vpc-nat-gateways", gateway(spec), &world), 400, &[word]);
    }
    says(
        delete("vpc-nat-gateways", gateway(good.clone()), &world),
        400,
        &["eip \"eip\" is in use"],
    );
    let eip = named("e", json!({"natGwDp": "gw", "v4ip": "172.19.0.9"}));
    assert_eq!(create("iptables-eips", eip.clone(), &world), "ok");
    let mut unset = world.clone();
    unset.remove("configmaps");
    says(create("iptables-eips", eip, &unset), 400, &["ovn-vpc-nat-config", "not configured"]);
    let snat = named("s", json!({"eip": "eip", "internalCIDR": "10.0.0.0"}));
    says(create("iptables-snat-rules", snat, &world), 400, &["internalCIDR"]);
    // `status.redo` unfreezes.
    let old = json!({"metadata": {"name": "f"}, "spec": {"eip": "eip", "internalIp": "10.16.0.3"},
        "status": {"ready": true, "redo": "1"}});
    let mut changed = old.clone();
    changed["spec"]["internalIp"] = "10.16.0.4".into();
    says(update("iptables-fip-rules", old.clone(), changed.clone(), &world), 400, &["is ready"]);
    changed["status"]["redo"] = "2".into();
    assert_eq!(update("iptables-fip-rules", old, changed, &world), "ok");
}

#[test]
fn reviews_are_answered_in_their_own_form() {
    let asked = json!({"apiVersion": "admission.k8s.io/v1beta1", "request": {"uid": "u"}});
    let refused = answer(&asked, &Verdict::Refused { code: 403, message: "no".into() });
    assert_eq!(refused["apiVersion"], "admission.k8s.io/v1beta1");
    assert_eq!(
        refused["response"],
        json!({"uid": "u", "allowed": false,
        "status": {"code": 403, "message": "no"}})
    );
    let unknown = answer(&asked, &Verdict::Unknown("the API server is away".into()));
    assert_eq!(unknown["response"]["allowed"], true);
    assert!(unknown["response"]["warnings"][0].as_str().unwrap().contains("away"));
    assert!(Request::parse(&json!({})).is_none());
    assert!(Request::parse(&json!({"operation": 7})).is_none());
}

/// Names come from users: they must not leave their place in the path.
#[test]
fn paths_hold_names_only() {
    assert_eq!(
        path(&Question::One("vpcs", "../x?y".into())),
        "/apis/kubeovn.io/v1/vpcs/..%2Fx%3Fy"
    );
    let labels = Question::All("ips", "ovn.kubernetes.io/subnet=s".into());
    assert_eq!(
        path(&labels),
        "/apis/kubeovn.io/v1/ips?labelSelector=ovn.kubernetes.io%2Fsubnet%3Ds"
    );
    assert!(certificate::names().contains(&"kube-ovn-webhook.kube-system.svc".to_owned()));
}
