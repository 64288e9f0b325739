//! Subnets: who gets in, who is kept out, where traffic leaves.

use serde_json::json;

use crate::{cluster::retry, pods::Pod, story::story};

#[test]
fn namespace_gets_addresses_of_its_subnet() {
    story("own-subnet", |s| {
        s.subnet("e2e-own", json!({"cidrBlock": "10.68.0.0/24", "namespaces": [s.ns]}));
        s.wait_condition("e2e-own", "Ready", "True");
        s.start(&[Pod::new("own"), Pod::new("default").with("logical_switch", "ovn-default")]);
        let (own, default) = (s.ip("own"), s.ip("default"));
        assert!(own.starts_with("10.68.0."), "{own}");
        assert!(default.starts_with("10.16."), "{default}");
        s.pings("own", &default);
        s.pings("default", &own);
        let status = s.cluster.objects(&["subnet", "e2e-own"]).remove(0)["status"].clone();
        assert_eq!(status["v4usingIPs"], 1, "{status}");
    });
}

#[test]
fn wrong_subnets_are_refused_with_the_reason() {
    story("wrong-subnets", |s| {
        s.subnet("e2e-overlap", json!({"cidrBlock": "10.16.3.0/24", "namespaces": [s.ns]}));
        s.subnet("e2e-no-cidr", json!({"cidrBlock": "10.69.0.0/33"}));
        s.subnet("e2e-gateway", json!({"cidrBlock": "10.69.0.0/24", "gateway": "10.70.0.1"}));
        for (subnet, words) in [
            ("e2e-overlap", ["10.16.3.0/24", "ovn-default"]),
            ("e2e-no-cidr", ["cidrBlock", "10.69.0.0/33"]),
            ("e2e-gateway", ["gateway", "10.70.0.1"]),
        ] {
            let message = s.wait_condition(subnet, "Error", "True");
            assert!(words.iter().all(|w| message.contains(w)), "{subnet}: {message}");
            s.step(&format!("{subnet}: {message}"));
            let switches = s.cluster.nbctl(&["ls-list"]).unwrap();
            assert!(!switches.contains(subnet), "{subnet} got a switch");
        }
        s.start(&[Pod::new("fine").with("logical_switch", "ovn-default")]);
        // Gateway and exclusions were filled in by then.
        let free = |gateway: &str| {
            json!({"cidrBlock": "10.69.3.0/24", "gateway": gateway, "excludeIps": ["10.69.3.1"],
                "namespaces": [s.ns]})
        };
        s.put_subnet("e2e-overlap", free("10.69.3.1"));
        s.wait_condition("e2e-overlap", "Ready", "True");
        s.start(&[Pod::new("late")]);
        let late = s.ip("late");
        assert!(late.starts_with("10.69.3."));
        s.put_subnet("e2e-overlap", free("10.70.0.1"));
        s.wait_condition("e2e-overlap", "Error", "True");
        s.pings("fine", &late);
        s.step("a wrong edit leaves the subnet as it was");
        let leader = s.cluster.leader();
        s.cluster.kubectl(&["-n", "kube-system", "delete", "pod", &leader]).unwrap();
        retry(60, || match s.cluster.leader() {
            same if same == leader => Err("no new leader".to_owned()),
            _ => s.cluster.settled_metric("kube_ovn_rows"),
        });
        s.pings("fine", &late);
        let ports = s.cluster.nbctl(&["lsp-list", "e2e-overlap"]).unwrap();
        assert!(ports.contains("late."), "{ports}");
        s.step("and so does a controller that starts after it");
    });
}

#[test]
fn private_subnet_keeps_others_out() {
    story("private", |s| {
        let nodes = s.cluster.nodes();
        let private = json!({"cidrBlock": "10.71.0.0/24", "private": true});
        s.subnet("e2e-private", private.clone());
        s.start(&[
            Pod::new("in1").on(&nodes[0].name).with("logical_switch", "e2e-private"),
            Pod::new("in2").on(&nodes[1].name).with("logical_switch", "e2e-private"),
            Pod::new("out").on(&nodes[1].name),
        ]);
        let inside = s.ip("in1");
        s.pings("in2", &inside);
        s.never_pings("out", &inside);
        let probe = ["ping", "-c", "1", "-W", "1", &inside];
        retry(10, || s.cluster.enter(&nodes[0].name, &probe));
        s.step("the node reaches its pod");
        let mut open = private.clone();
        open["allowSubnets"] = json!([format!("{}/32", s.ip("out"))]);
        s.put_subnet("e2e-private", open);
        s.pings("out", &inside);
        s.put_subnet(
            "e2e-private",
            json!({"cidrBlock": "10.71.0.0/24", "private": false, "allowSubnets": []}),
        );
        s.pings("out", &inside);
    });
}

#[test]
fn centralized_gateway_sends_all_traffic_out_by_its_node() {
    story("centralized", |s| {
        let nodes = s.cluster.nodes();
        let spec = |node: &str| {
            json!({"cidrBlock": "10.72.0.0/24", "gatewayType": "centralized",
                "gatewayNode": node, "natOutgoing": true})
        };
        s.cluster.outside_tells_addresses();
        s.subnet("e2e-central", spec(&nodes[1].name));
        let pods = [("a", 0), ("b", 1), ("c", 2)];
        let of = |(name, node): &(&str, usize)| {
            Pod::new(name).on(&nodes[*node].name).with("logical_switch", "e2e-central")
        };
        s.start(&pods.iter().map(of).collect::<Vec<_>>());
        let outside = s.cluster.outside();
        for (pod, _) in pods {
            s.is_seen_as(pod, outside, &nodes[1].ip);
        }
        s.put_subnet("e2e-central", spec(&nodes[2].name));
        retry(20, || {
            let url = format!("http://{outside}/cgi-bin/me");
            let seen = s.exec("a", &["wget", "-qO-", "-T", "2", &url])?;
            if seen.contains(&nodes[2].ip) { Ok(()) } else { Err(format!("leaves as {seen}")) }
        });
        s.step("the gateway moves with spec.gatewayNode");
    });
}
