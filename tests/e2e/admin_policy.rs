//! Policies of administrators, and the node's DNS cache, by packets. Both are behind flags of the
//! controller, which is restarted once for them.

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, retry},
    guard::undo,
    pods::{Pod, page_of},
    services::flags,
    story::{Story, story},
};

const GROUP: &str = "policy.networking.k8s.io";
const CACHE: &str = "169.254.20.10";

fn crd(kind: &str, plural: &str) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}"), "annotations": {
            "api-approved.kubernetes.io": "unapproved, for tests"}},
        "spec": {"group": GROUP, "scope": "Cluster",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true,
                "subresources": {"status": {}}, "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}})
}

/// The kinds of administrators' policies, as long as the result lives.
fn kinds(cluster: &Cluster) -> impl Sized + '_ {
    let all = [
        crd("AdminNetworkPolicy", "adminnetworkpolicies"),
        crd("BaselineAdminNetworkPolicy", "baselineadminnetworkpolicies"),
    ];
    cluster.apply(&all);
    for crd in &all {
        let name = format!("crd/{}", crd["metadata"]["name"].as_str().unwrap());
        let wait = ["wait", "--for=condition=Established", "--timeout=60s", &name];
        retry(60, || cluster.kubectl(&wait));
    }
    undo(move || {
        for crd in &all {
            let name = crd["metadata"]["name"].as_str().unwrap();
            cluster.kubectl(&["delete", "crd", name, "--timeout=60s"]).expect("the kind goes");
        }
    })
}

impl Story {
    /// An AdminNetworkPolicy, or the baseline (without a priority), about the story's server.
    fn administer(&self, name: &str, priority: Option<i64>, rules: Value) {
        let kind = match priority {
            Some(_) => "AdminNetworkPolicy",
            None => "BaselineAdminNetworkPolicy",
        };
        let mut spec = json!({"ingress": rules, "subject": {"pods": {
            "namespaceSelector": self.here(), "podSelector": {"matchLabels": {"app": "server"}}}}});
        if let Some(priority) = priority {
            spec["priority"] = priority.into();
        }
        self.cluster.apply(&[json!({"apiVersion": format!("{GROUP}/v1alpha1"), "kind": kind,
            "metadata": {"name": name}, "spec": spec})]);
    }

    /// Selects the story's namespace.
    fn here(&self) -> Value {
        json!({"matchLabels": {"kubernetes.io/metadata.name": self.ns}})
    }

    fn ready_condition(&self, kind: &str, name: &str) -> Result<String, String> {
        let object = self.cluster.objects(&[kind, name]).remove(0);
        let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = all.iter().find(|c| c["type"] == "Ready").ok_or("no condition Ready")?;
        Ok(format!("{} {}", ready["status"], ready["message"]))
    }
}

fn administrators_decide_first_and_last(s: &Story) {
    let page = page_of(&s.ip("server"));
    let from = |app: &str| {
        json!([{"pods": {"namespaceSelector": s.here(),
            "podSelector": {"matchLabels": {"app": app}}}}])
    };
    let rule =
        |action: &str, app: &str| json!([{"name": "x", "action": action, "from": from(app)}]);
    // The baseline counts where nobody else speaks.
    s.administer("default", None, rule("Deny", "friend"));
    s.never_fetches("friend", &page);
    s.fetches("other", &page, "server");
    // A NetworkPolicy overrides the baseline, and is overridden by administrators.
    s.policy(
        "friends",
        json!({"podSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}]}),
    );
    s.fetches("friend", &page, "server");
    s.never_fetches("other", &page);
    s.administer("first", Some(500), rule("Deny", "friend"));
    s.never_fetches("friend", &page);
    s.administer("zeroth", Some(7), rule("Pass", "friend"));
    s.fetches("friend", &page, "server");
    s.administer("zeroth", Some(7), rule("Allow", "other"));
    s.fetches("other", &page, "server");
    s.never_fetches("friend", &page);
    s.step("Deny, Pass and Allow of priorities 7 and 500, NetworkPolicy, baseline: as they should");
    // Who has the same priority is told so.
    s.administer("rival", Some(500), rule("Deny", "nobody"));
    for name in ["first", "rival"] {
        retry(30, || match s.ready_condition("adminnetworkpolicy", name)? {
            told if told.contains("False") && told.contains("500") => Ok(()),
            other => Err(format!("{name}: {other}")),
        });
    }
    // A Deny that cannot be read denies all pods, and never the kubelet of the server's node.
    s.administer(
        "rival",
        Some(3),
        json!([{"name": "x", "action": "Deny",
        "from": [{"namespaces": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}]}]),
    );
    s.never_fetches("other", &page);
    let node = s.cluster.nodes()[0].name.clone();
    let probe = ["busybox", "wget", "-qO-", "-T", "2", &page];
    retry(20, || s.cluster.enter(&node, &probe));
    s.step("a Deny that cannot be read: no pod gets in, the node's probe does");
    for (kind, name) in [
        ("adminnetworkpolicy", "first"),
        ("adminnetworkpolicy", "zeroth"),
        ("adminnetworkpolicy", "rival"),
        ("baselineadminnetworkpolicy", "default"),
    ] {
        s.cluster.kubectl(&["delete", kind, name]).expect("a policy goes");
    }
    s.kubectl(&["delete", "networkpolicy", "friends"]).expect("the policy goes");
    for pod in ["friend", "other"] {
        s.fetches(pod, &page, "server");
    }
}

/// A DNS server at the address of the node's cache, as NodeLocal DNSCache sets itself up.
fn node_cache(s: &Story, node: &str) {
    let zone = ".:53 {\n bind 169.254.20.10\n hosts {\n 192.0.2.53 cached.example\n }\n}\n";
    let system = json!([{"name": "zone", "configMap": {"name": "zone"}}]);
    s.cluster.apply(&[
        json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "zone", "namespace": s.ns}, "data": {"Corefile": zone}}),
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "cache", "namespace": s.ns, "labels": {"app": "cache"}},
            "spec": {"hostNetwork": true, "nodeName": node, "terminationGracePeriodSeconds": 0,
                "tolerations": [{"operator": "Exists"}], "volumes": system,
                "containers": [{"name": "dns", "image": "kube-ovn-sandbox/coredns:1",
                    "imagePullPolicy": "Never", "args": ["-conf", "/zone/Corefile"],
                    "volumeMounts": [{"name": "zone", "mountPath": "/zone"}]}]}}),
    ]);
    s.wait_ready(&["cache"]);
}

/// The rules that keep the cache's packets out of the node's connection tracking.
fn untracked(cluster: &Cluster, node: &str, verb: &str) -> Result<String, String> {
    let mut script = String::from("set -e\n");
    for (chain, end) in [("PREROUTING", "d"), ("OUTPUT", "s")] {
        script += &format!("iptables -w -t raw -{verb} {chain} -{end} {CACHE} -j NOTRACK\n");
    }
    cluster.enter(node, &["sh", "-c", &script])
}

/// Manual 7.23.3.
fn dns_cache_is_for_those_whom_policies_let(s: &Story) {
    let node = s.cluster.nodes()[1].name.clone();
    let address = |verb: &str| {
        let to = format!("{CACHE}/32");
        s.cluster.enter(&node, &["ip", "addr", verb, &to, "dev", "lo"])
    };
    address("add").expect("the address of the cache");
    let gone = undo(|| {
        address("del").expect("the address goes");
    });
    untracked(s.cluster, &node, "A").expect("rules of the cache");
    let tracked = undo(|| {
        untracked(s.cluster, &node, "D").expect("the rules go");
    });
    node_cache(s, &node);
    let ask = ["nslookup", "-type=a", "cached.example", CACHE];
    let resolves = || {
        retry(30, || match s.exec("friend", &ask)? {
            told if told.contains("192.0.2.53") => Ok(()),
            other => Err(other),
        });
    };
    resolves();
    s.step("without policies the pod asks its node's cache");
    s.policy(
        "closed",
        json!({"podSelector": {"matchLabels": {"app": "friend"}},
        "policyTypes": ["Ingress", "Egress"]}),
    );
    retry(30, || match s.exec("friend", &ask) {
        Ok(told) if told.contains("192.0.2.53") => Err(told),
        _ => Ok(()),
    });
    s.step("isolated, it does not");
    let cache = json!([{"ipBlock": {"cidr": format!("{CACHE}/32")}}]);
    s.policy(
        "cache",
        json!({"podSelector": {"matchLabels": {"app": "friend"}},
        "policyTypes": ["Ingress", "Egress"],
        "egress": [{"to": cache}], "ingress": [{"from": cache}]}),
    );
    resolves();
    s.step("with the policy of manual 7.23.3 it does again");
    // Answers belong to their questions: egress alone is enough.
    s.policy(
        "cache",
        json!({"podSelector": {"matchLabels": {"app": "friend"}},
        "policyTypes": ["Egress"], "egress": [{"to": cache, "ports": [
            {"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}]}),
    );
    resolves();
    s.step("with its rule about egress alone, too");
    s.kubectl(&["delete", "networkpolicy", "--all"]).expect("policies go");
    s.delete_pods(&["cache"]);
    drop((tracked, gone));
}

#[test]
fn administrators_and_dns_caches() {
    story("administered", |s| {
        let nodes = s.cluster.nodes();
        let _kinds = kinds(s.cluster);
        let _back = undo(|| flags(s, &[("enable-anp", "false"), ("node-local-dns-ip", "")]));
        flags(s, &[("enable-anp", "true"), ("node-local-dns-ip", CACHE)]);
        s.step("controller with --enable-anp and --node-local-dns-ip");
        s.start(&[
            Pod::new("server").on(&nodes[0].name),
            Pod::new("friend").on(&nodes[1].name),
            Pod::new("other").on(&nodes[0].name),
        ]);
        administrators_decide_first_and_last(s);
        if !s.cluster.outside().contains(':') {
            dns_cache_is_for_those_whom_policies_let(s);
        }
    });
}
