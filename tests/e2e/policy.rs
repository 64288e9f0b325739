//! NetworkPolicy by packets.

use serde_json::{Value, json};

use crate::{
    audit::agreement,
    churn::kill,
    cluster::{Cluster, retry, text},
    pods::{Pod, page_of},
    story::{Story, story},
};

impl Story {
    pub fn policy(&self, name: &str, spec: Value) {
        self.cluster
            .apply(&[json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": self.ns}, "spec": spec})]);
    }

    /// Where the controller that leads runs.
    fn controller_node(&self) -> Result<String, String> {
        let pods =
            self.cluster.objects(&["-n", "kube-system", "pods", "-l", "app=kube-ovn-controller"]);
        let leader = self.cluster.leader();
        let pod = pods.iter().find(|p| p["metadata"]["name"] == *leader);
        pod.map(|p| text(&p["spec"]["nodeName"])).ok_or(format!("no pod of the leader {leader}"))
    }

    /// Nothing comes back within 2 s; a policy is in force after a moment.
    #[track_caller]
    pub fn never_fetches(&self, pod: &str, url: &str) {
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

/// Rows that policies are made of, as text.
fn policy_rows(cluster: &Cluster) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    for (table, columns) in [
        ("Port_Group", "name"),
        ("Address_Set", "name"),
        ("ACL", "priority,direction,match,action"),
    ] {
        let columns = format!("--columns={columns}");
        let rows = cluster.nbctl(&["--format=csv", "--no-headings", &columns, "list", table])?;
        lines.extend(rows.lines().map(|row| format!("{table}: {row}")));
    }
    lines.sort();
    Ok(lines)
}

/// Asks for a page again and again; answers come into /tmp/got, a line for each that fails into
/// /tmp/lost.
fn keep_asking(s: &Story, pod: &str, url: &str, seconds: u64) {
    let script = format!(
        "(while sleep 0.2; do wget -qO- -T {seconds} {url} >>/tmp/got || echo >>/tmp/lost; done) \
         >/dev/null 2>&1 </dev/null &"
    );
    s.exec(pod, &["sh", "-c", &script]).expect("start asking");
}

/// Policies that come and go beside those of the story; none of them opens the server to anybody
/// but its friend.
fn churning(round: usize) -> Vec<Value> {
    let server = json!({"matchLabels": {"app": "server"}});
    let friend = json!({"podSelector": {"matchLabels": {"app": "friend"}}});
    (0..20)
        .map(|n| {
            let peers = match n % 3 {
                0 => json!([friend]),
                1 => json!([{"podSelector": {"matchLabels": {"app": format!("nobody-{round}")}}}]),
                _ => json!([{"ipBlock": {"cidr": format!("192.0.2.{round}/32")}}, friend]),
            };
            let subject = if n % 2 == 0 { server.clone() } else { json!({}) };
            let mut spec = json!({"podSelector": subject, "ingress": [{"from": peers}]});
            if n % 2 != 0 {
                // About egress of everybody, of whom all stay open.
                spec = json!({"podSelector": subject, "policyTypes": ["Egress"],
                    "egress": [{}, {"to": peers, "ports": [{"port": 80 + round}]}]});
            }
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": format!("churn-{n}")}, "spec": spec})
        })
        .collect()
}

#[test]
fn kills_during_policy_churn_open_nothing_and_leave_nothing() {
    story("policy-churn", |s| {
        let nodes = s.cluster.nodes();
        s.start(&[
            Pod::new("server").on(&nodes[0].name),
            Pod::new("friend").on(&nodes[1].name),
            Pod::new("other").on(&nodes[0].name),
        ]);
        let page = page_of(&s.ip("server"));
        retry(90, || agreement(s.cluster));
        let before = policy_rows(s.cluster).unwrap();
        let subject = json!({"matchLabels": {"app": "server"}});
        s.policy("deny", json!({"podSelector": subject}));
        s.policy(
            "allow",
            json!({"podSelector": subject, "ingress": [{"from": [
                {"podSelector": {"matchLabels": {"app": "friend"}}}]}]}),
        );
        s.fetches("friend", &page, "server");
        s.never_fetches("other", &page);
        keep_asking(s, "other", &page, 1);
        keep_asking(s, "friend", &page, 10);
        for round in 1..=4 {
            let mut policies = churning(round);
            for policy in &mut policies {
                policy["metadata"]["namespace"] = s.ns.as_str().into();
            }
            let (early, late) = policies.split_at(policies.len() / 2);
            s.cluster.apply(early);
            // Some of it is committed, some is not, some has not been seen.
            let node = retry(90, || s.controller_node());
            if round % 2 == 0 {
                retry(60, || kill(s.cluster, &node, "start-controller"));
            }
            s.cluster.apply(late);
            let gone: Vec<String> = (0..20).step_by(3).map(|n| format!("churn-{n}")).collect();
            let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
            s.kubectl(&[&["delete", "networkpolicy"], &gone[..]].concat()).expect("some go");
        }
        s.step("4 rounds of 20 policies, the controller killed -9 in two of them");
        let churned: Vec<String> = (0..20).map(|n| format!("churn-{n}")).collect();
        let churned: Vec<&str> = churned.iter().map(String::as_str).collect();
        let delete = [&["delete", "networkpolicy", "--ignore-not-found"], &churned[..]].concat();
        s.kubectl(&delete).expect("all go");
        retry(120, || agreement(s.cluster));
        s.fetches("friend", &page, "server");
        s.never_fetches("other", &page);
        let count = |pod: &str, file: &str| {
            let script = format!("cat {file} 2>/dev/null | wc -l");
            retry(30, || s.exec(pod, &["sh", "-c", &script])).trim().parse::<u64>().unwrap()
        };
        assert_eq!(count("other", "/tmp/got"), 0, "the server was open to others for a moment");
        let (asked, lost) = (count("friend", "/tmp/got"), count("friend", "/tmp/lost"));
        assert!(asked > 10 && lost == 0, "{lost} of {asked} connections of the friend were lost");
        s.step(&format!("0 answers to others, {asked} to the friend, none lost"));
        s.kubectl(&["delete", "networkpolicy", "--all"]).expect("policies go");
        retry(90, || {
            let now = policy_rows(s.cluster)?;
            let left: Vec<&String> = now.iter().filter(|row| !before.contains(row)).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:?}")) }
        });
        s.step("no port group, address set or ACL is left behind");
        s.fetches("other", &page, "server");
    });
}

#[test]
fn a_pod_reaches_itself_behind_its_services() {
    story("hairpin", |s| {
        let nodes = s.cluster.nodes();
        s.start(&[Pod::new("server").on(&nodes[0].name), Pod::new("other").on(&nodes[1].name)]);
        let range = s.cluster.choose("10.200.77.0/24", "fd00:10:200::/112");
        let address = s.cluster.choose("10.200.77.10", "fd00:10:200::10");
        let external = s.cluster.choose("192.0.2.80", "2001:db8::80");
        s.extra("servicecidr", "e2e-hairpin");
        s.cluster.apply(&[json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": "e2e-hairpin"}, "spec": {"cidrs": [range]}})]);
        let service = |name: &str, more: Value| {
            let mut spec = json!({"selector": {"app": "server"}, "ports": [{"port": 80}]});
            for (field, value) in more.as_object().into_iter().flatten() {
                spec[field] = value.clone();
            }
            json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": name, "namespace": s.ns}, "spec": spec})
        };
        let near = service("near", json!({"externalIPs": [external]}));
        retry(60, || s.try_apply(std::slice::from_ref(&near)));
        let far = service("far", json!({"clusterIP": address}));
        retry(60, || s.try_apply(std::slice::from_ref(&far)));
        let near = s.cluster.objects(&["-n", &s.ns, "service", "near"]).remove(0);
        let cluster_ip = text(&near["spec"]["clusterIP"]);
        let pages = [&*cluster_ip, external, address].map(page_of);
        for page in &pages {
            s.fetches("other", page, "server");
            s.fetches("server", page, "server");
        }
        s.policy("deny", json!({"podSelector": {"matchLabels": {"app": "server"}}}));
        for page in &pages {
            s.never_fetches("other", page);
            s.fetches("server", page, "server");
        }
        s.step(
            "isolated, it reaches itself behind a cluster IP, one of another range, an external",
        );
        // Nodes know the other range, too.
        let set = s.cluster.choose("ovn40services", "ovn60services");
        for node in &nodes {
            retry(60, || {
                let listed = s.cluster.enter(&node.name, &["ipset", "list", set])?;
                if listed.contains(range) { Ok(()) } else { Err(listed) }
            });
        }
        s.step("the range of the ServiceCIDR is in the nodes' sets");
        s.kubectl(&["delete", "service", "far", "near"]).expect("the Services go");
    });
}

#[test]
fn cluster_ips_of_peers_where_the_switch_does_not_balance() {
    story("unbalanced", |s| {
        let nodes = s.cluster.nodes();
        let cidr = s.cluster.by_family("10.61.0.0/24", "fd00:10:61::/112");
        s.subnet("e2e-plain", json!({"cidrBlock": cidr, "enableLb": false}));
        s.start(&[
            Pod::new("client").on(&nodes[0].name).with("logical_switch", "e2e-plain"),
            Pod::new("server").on(&nodes[1].name),
            Pod::new("other").on(&nodes[1].name),
        ]);
        let pages = ["server", "other"].map(|name| {
            s.cluster.apply(&[json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": name, "namespace": s.ns},
                "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}})]);
            let made = s.cluster.objects(&["-n", &s.ns, "service", name]).remove(0);
            page_of(&text(&made["spec"]["clusterIP"]))
        });
        s.fetches("client", &pages[0], "server");
        s.fetches("client", &pages[1], "other");
        s.policy(
            "to-server",
            json!({"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"],
                "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "server"}}}],
                    "ports": [{"port": 80}]}]}),
        );
        s.never_fetches("client", &pages[1]);
        s.fetches("client", &pages[0], "server");
    });
}
