//! Security groups: who gets in is what their rules say, and nothing else.

use serde_json::{Value, json};

use crate::{
    cluster::{retry, text},
    pods::{Pod, page_of},
    story::{Story, story},
};

const WEB: &str = "e2e-sg-web";
const CLIENTS: &str = "e2e-sg-clients";

fn put_group(s: &Story, name: &str, ingress: &[Value], egress: &[Value]) {
    s.cluster.apply(&[json!({"apiVersion": "kubeovn.io/v1", "kind": "SecurityGroup",
        "metadata": {"name": name}, "spec": {"ingressRules": ingress, "egressRules": egress}})]);
}

fn status_says(s: &Story, name: &str, field: &str, value: &Value) {
    retry(20, || {
        let status = s.cluster.objects(&["security-group", name]).remove(0)["status"].clone();
        if status[field] == *value { Ok(()) } else { Err(format!("{name}: {status}")) }
    });
}

#[test]
fn security_group_lets_in_what_its_rules_say() {
    story("security", |s| {
        let nodes = s.cluster.nodes();
        let subnet = s.cluster.objects(&["subnet", "ovn-default"]).remove(0);
        let gateway = text(&subnet["spec"]["gateway"]);
        let gateway = gateway.split(',').next().unwrap_or_default();
        let version = if gateway.contains(':') { "ipv6" } else { "ipv4" };
        let rule = |priority: u8, protocol: &str, remote: &str| {
            json!({"ipVersion": version, "policy": "allow", "priority": priority,
                "protocol": protocol, "remoteType": "address", "remoteAddress": remote})
        };
        let by_group = |priority: u8| {
            json!({"ipVersion": version, "policy": "allow", "priority": priority,
                "protocol": "icmp", "remoteType": "securityGroup", "remoteSecurityGroup": CLIENTS})
        };
        let ports = |mut rule: Value| {
            (rule["portRangeMin"], rule["portRangeMax"]) = (80.into(), 80.into());
            rule
        };
        for group in [WEB, CLIENTS] {
            s.goes_with("security-group", group);
        }
        // A pod is only ready when its node reaches the gateway through its port.
        let to_gateway = [rule(1, "icmp", gateway)];
        put_group(s, WEB, &[], &to_gateway);
        s.start(&[
            Pod::new("web").on(&nodes[0].name).with("security_groups", WEB),
            Pod::new("client").on(&nodes[1].name),
            Pod::new("other").on(&nodes[1].name),
        ]);
        let (web, client) = (s.ip("web"), s.ip("client"));
        s.never_pings("client", &web);
        s.never_pings("web", &client);

        put_group(s, WEB, &[ports(rule(2, "tcp", &client))], &to_gateway);
        s.fetches("client", &page_of(&web), "web");
        s.never_pings("client", &web);
        let refused = s.exec("other", &["wget", "-qO-", "-T", "2", &page_of(&web)]);
        assert!(refused.is_err(), "other must not reach the server: {refused:?}");
        s.step("another pod is kept out");

        // The group it names does not exist yet: the status says so and nothing opens.
        let ingress = [ports(rule(2, "tcp", &client)), by_group(3)];
        put_group(s, WEB, &ingress, &to_gateway);
        status_says(s, WEB, "ingressLastSyncSuccess", &false.into());
        status_says(s, WEB, "egressLastSyncSuccess", &true.into());
        s.never_pings("client", &web);
        let everywhere = if version == "ipv6" { "::/0" } else { "0.0.0.0/0" };
        put_group(s, CLIENTS, &[], &[rule(1, "all", everywhere)]);
        status_says(s, WEB, "ingressLastSyncSuccess", &true.into());
        let annotate = format!("ovn.kubernetes.io/security_groups={CLIENTS}");
        s.kubectl(&["annotate", "pod", "client", &annotate]).expect("annotate the client");
        s.pings("client", &web);
        s.never_pings("other", &web);
        s.never_pings("other", &client);

        s.kubectl(&["annotate", "pod", "web", "ovn.kubernetes.io/security_groups-"]).unwrap();
        s.pings("other", &web);
    });
}

#[test]
fn a_pod_of_several_groups_may_do_what_any_of_them_allows() {
    story("security-groups", |s| {
        let nodes = s.cluster.nodes();
        let [web, ping, team] = ["e2e-sg-http", "e2e-sg-ping", "e2e-sg-team"];
        for group in [web, ping, team] {
            s.goes_with("security-group", group);
        }
        let subnet = s.cluster.objects(&["subnet", "ovn-default"]).remove(0);
        let versions: Vec<(&str, &str)> = match text(&subnet["spec"]["protocol"]).as_str() {
            "IPv6" => vec![("ipv6", "::/0")],
            "Dual" => vec![("ipv4", "0.0.0.0/0"), ("ipv6", "::/0")],
            _ => vec![("ipv4", "0.0.0.0/0")],
        };
        let rules = |protocol: &str| -> Vec<Value> {
            let rule = |(version, all): &(&str, &str)| {
                let mut rule = json!({"ipVersion": version, "policy": "allow", "priority": 1,
                    "protocol": protocol, "remoteType": "address", "remoteAddress": all});
                if protocol == "tcp" {
                    (rule["portRangeMin"], rule["portRangeMax"]) = (80.into(), 80.into());
                }
                rule
            };
            versions.iter().map(rule).collect()
        };
        put_group(s, web, &rules("tcp"), &rules("all"));
        put_group(s, ping, &rules("icmp"), &rules("all"));
        // Members of one group talk to each other, whatever its rules say.
        s.cluster.apply(&[json!({"apiVersion": "kubeovn.io/v1", "kind": "SecurityGroup",
            "metadata": {"name": team}, "spec": {"allowSameGroupTraffic": true,
                "ingressRules": [], "egressRules": rules("all")}})]);
        s.start(&[
            Pod::new("both").on(&nodes[0].name).with("security_groups", &format!("{web},{ping}")),
            Pod::new("one").on(&nodes[1].name).with("security_groups", web),
            Pod::new("mate").on(&nodes[0].name).with("security_groups", team),
            Pod::new("other").on(&nodes[1].name).with("security_groups", team),
            Pod::new("free").on(&nodes[1].name),
        ]);
        let [both, one, mate] = ["both", "one", "mate"].map(|pod| s.ip(pod));
        s.fetches("free", &page_of(&both), "both");
        s.pings("free", &both);
        s.fetches("free", &page_of(&one), "one");
        s.never_pings("free", &one);
        s.pings("other", &mate);
        s.fetches("other", &page_of(&mate), "mate");
        s.never_pings("free", &mate);
        // It leaves one of its groups, and with it what only that one allowed.
        let annotate = format!("ovn.kubernetes.io/security_groups={web}");
        s.kubectl(&["annotate", "pod", "both", "--overwrite", &annotate]).expect("annotate");
        retry(20, || match s.exec("free", &["ping", "-c", "1", "-W", "1", &both]) {
            Ok(_) => Err("still answers".to_owned()),
            Err(_) => Ok(()),
        });
        s.never_pings("free", &both);
        s.fetches("free", &page_of(&both), "both");
    });
}
