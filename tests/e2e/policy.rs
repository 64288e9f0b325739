//! NetworkPolicy by packets.

use serde_json::{Value, json};

use crate::{
    cluster::retry,
    pods::{Pod, page_of},
    story::{Story, story},
};

impl Story {
    fn policy(&self, name: &str, spec: Value) {
        self.cluster
            .apply(&[json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": self.ns}, "spec": spec})]);
    }

    /// Nothing comes back within 2 s; a policy is in force after a moment.
    #[track_caller]
    fn never_fetches(&self, pod: &str, url: &str) {
        retry(20, || match self.exec(pod, &["wget", "-qO-", "-T", "2", url]) {
            Ok(page) => Err(format!("{url} still answers {page:?}")),
            Err(_) => Ok(()),
        });
        let again = self.exec(pod, &["wget", "-qO-", "-T", "2", url]);
        assert!(again.is_err(), "{pod} must not fetch {url}: {again:?}");
        self.step(&format!("{pod} does not fetch {url}"));
    }
}

#[test]
fn policies_decide_who_reaches_whom() {
    story("policy", |s| {
        let nodes = s.cluster.nodes();
        let mut server = Pod::new("server").on(&nodes[0].name).manifest(&s.ns);
        server["spec"]["containers"][0]["ports"] = json!([{"name": "web", "containerPort": 80}]);
        server["spec"]["containers"][0]["readinessProbe"] =
            json!({"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1});
        s.cluster.apply(&[server]);
        s.start(&[Pod::new("friend").on(&nodes[1].name), Pod::new("other").on(&nodes[0].name)]);
        s.wait_ready(&["server"]);
        let page = page_of(&s.ip("server"));
        for pod in ["friend", "other"] {
            s.fetches(pod, &page, "server");
        }
        s.policy("deny", json!({"podSelector": {"matchLabels": {"app": "server"}}}));
        for pod in ["friend", "other"] {
            s.never_fetches(pod, &page);
        }
        s.policy(
            "allow",
            json!({"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"app": "friend"}}}],
                "ports": [{"port": "web"}]}]}),
        );
        s.fetches("friend", &page, "server");
        s.never_fetches("other", &page);
        // The kubelet probes the server every second; it would no longer be ready.
        s.wait_ready(&["server"]);
        let fetch = ["busybox", "wget", "-qO-", "-T", "2", &page];
        retry(10, || s.cluster.enter(&nodes[0].name, &fetch));
        s.step("the node reaches its pod, the probe passes");
        s.cluster.enter(&nodes[2].name, &fetch).expect_err("another node must not");
        s.step("another node does not");
        let nobody = json!({"podSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{"ports": [{"port": "nobody"}]}]});
        s.policy("allow", nobody);
        s.never_fetches("friend", &page);
        s.kubectl(&["delete", "networkpolicy", "--all"]).unwrap();
        for pod in ["friend", "other"] {
            s.fetches(pod, &page, "server");
        }
    });
}

#[test]
fn egress_policies_keep_pods_from_blocks() {
    story("egress-policy", |s| {
        let nodes = s.cluster.nodes();
        s.start(&[
            Pod::new("client").on(&nodes[0].name),
            Pod::new("near").on(&nodes[0].name),
            Pod::new("far").on(&nodes[1].name),
        ]);
        let (near, far) = (s.ip("near"), s.ip("far"));
        let pages = [page_of(&near), page_of(&far)];
        s.policy(
            "blocks",
            json!({"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"],
                "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0",
                    "except": [format!("{far}/32")]}}]}]}),
        );
        s.never_fetches("client", &pages[1]);
        s.fetches("client", &pages[0], "near");
        s.pings("client", &near);
        // Answers to others are not egress.
        s.fetches("far", &page_of(&s.ip("client")), "client");
        s.kubectl(&["delete", "networkpolicy", "blocks"]).unwrap();
        s.fetches("client", &pages[1], "far");
    });
}
