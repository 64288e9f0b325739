//! Ways out of the cluster: gateway types, failover, external addresses, rates.

use std::time::Instant;

use serde_json::{Value, json};

use crate::{
    cluster::{another_in_its_network, retry, text},
    echoes::Echoes,
    guard::undo,
    pods::{Pod, page_of},
    story::{Story, story},
};

const SUBNET: &str = "e2e-gateway";

fn cidr(s: &Story) -> String {
    s.cluster.by_family("10.77.0.0/16", "fd00:10:77::/112")
}

fn in_subnet(name: &str) -> Pod {
    Pod::new(name).with("logical_switch", SUBNET)
}

fn centralized(s: &Story, nodes: &str) -> Value {
    json!({"cidrBlock": cidr(s), "natOutgoing": true, "gatewayType": "centralized",
        "gatewayNode": nodes})
}

fn active(s: &Story) -> String {
    let subnet = s.cluster.objects(&["subnet", SUBNET]).remove(0);
    text(&subnet["status"]["activateGateway"])
}

/// The address under which the pod is seen outside becomes `source`.
fn becomes_seen_as(s: &Story, pod: &str, source: &str) {
    s.becomes_seen_as(pod, s.cluster.outside(), source);
}

#[test]
fn a_gateway_type_switch_disturbs_nobody_else() {
    story("gateway-type", |s| {
        let nodes = s.cluster.nodes();
        s.cluster.outside_tells_addresses();
        s.subnet(SUBNET, json!({"cidrBlock": cidr(s), "natOutgoing": true}));
        s.start(&[
            in_subnet("a").on(&nodes[0].name),
            Pod::new("x").on(&nodes[0].name),
            Pod::new("y").on(&nodes[1].name),
        ]);
        let y = s.ip("y");
        s.pings("x", &y);
        becomes_seen_as(s, "a", &nodes[0].ip);
        // 100 echoes per second between pods of another subnet, while all this happens.
        let echoes = Echoes::start(s, "x", &y, 10);
        s.put_subnet(SUBNET, centralized(s, &nodes[1].name));
        becomes_seen_as(s, "a", &nodes[1].ip);
        assert_eq!(active(s), nodes[1].name);
        // A second node does not take the role away.
        s.put_subnet(SUBNET, centralized(s, &format!("{},{}", nodes[2].name, nodes[1].name)));
        s.wait_event_of_cluster(SUBNET, "SubnetGatewayNodeChanged", &[&nodes[2].name]);
        assert_eq!(active(s), nodes[1].name, "sticky");
        let edit = r#"{"spec": {"gatewayType": "distributed"}}"#;
        s.cluster.kubectl(&["patch", "subnet", SUBNET, "--type=merge", "-p", edit]).unwrap();
        becomes_seen_as(s, "a", &nodes[0].ip);
        let losses = echoes.all_answered();
        s.step(&format!("{} echoes between untouched pods: none lost", losses.sent));
        retry(30, || {
            let spec = s.cluster.objects(&["subnet", SUBNET]).remove(0)["spec"].clone();
            match text(&spec["gatewayNode"]) {
                cleared if cleared.is_empty() => Ok(()),
                left => Err(format!("gatewayNode is still {left}")),
            }
        });
        s.step("gatewayNode is cleared");
    });
}

#[test]
fn a_dead_gateway_node_is_replaced_within_seconds() {
    story("failover", |s| {
        let nodes = s.cluster.nodes();
        s.cluster.outside_tells_addresses();
        let [_, second, third] = &nodes[..3] else { unreachable!() };
        s.subnet(SUBNET, centralized(s, &format!("{},{}", second.name, third.name)));
        s.start(&[in_subnet("a").on(&nodes[0].name)]);
        becomes_seen_as(s, "a", &second.ip);
        // Its tunnels end; its kubelet goes on, so Kubernetes takes it for healthy.
        let tunnels = |state: &str| {
            s.cluster.enter(&second.name, &["ip", "link", "set", "eth1", state]).expect("eth1")
        };
        let echoes = Echoes::start(s, "a", s.cluster.outside(), 50);
        let healed = undo(|| drop(tunnels("up")));
        tunnels("down");
        retry(15, || match active(s) {
            node if node == third.name => Ok(()),
            node => Err(format!("the gateway is still {node}")),
        });
        // Its own time without answers ends when the first one comes.
        s.pings("a", s.cluster.outside());
        let report = echoes.end();
        drop(healed);
        s.step(&format!("{} takes over; {}", third.name, report.told()));
        assert!(report.silence() < 5.0, "less than 5 s on a busy machine: {}", report.told());
        becomes_seen_as(s, "a", &third.ip);
    });
}

#[test]
fn a_gateway_node_leaves_with_the_address_given_for_it() {
    story("egress-address", |s| {
        let nodes = s.cluster.nodes();
        s.cluster.outside_tells_addresses();
        let extra = another_in_its_network(&nodes[1].ip);
        let eth0 = |verb: &str| {
            s.cluster.enter(&nodes[1].name, &["ip", "address", verb, &extra, "dev", "eth0"])
        };
        let _ = eth0("del");
        eth0("add").expect("a second address");
        let _alias = undo(|| drop(eth0("del")));
        s.subnet(SUBNET, centralized(s, &format!("{}:{extra}", nodes[1].name)));
        s.start(&[in_subnet("a").on(&nodes[0].name)]);
        becomes_seen_as(s, "a", &extra);
    });
}

/// Seconds for 2 MB from `server` to `client`.
fn transfer(s: &Story, client: &str, server: &str) -> f64 {
    let command = format!("wget -qO- -T 30 {}big | wc -c", page_of(&s.ip(server)));
    let begun = Instant::now();
    let size = s.exec(client, &["sh", "-c", &command]).expect("a transfer");
    assert_eq!(size.trim(), "2097152");
    begun.elapsed().as_secs_f64()
}

#[test]
fn rates_limit_pods_and_change_while_they_run() {
    story("rates", |s| {
        let nodes = s.cluster.nodes();
        s.start(&[
            Pod::new("a").on(&nodes[0].name),
            Pod::new("b").on(&nodes[1].name).with("egress_rate", "4").with("latency", "0"),
            Pod::new("d").on(&nodes[1].name).with("latency", "50").with("mirror", "true"),
        ]);
        s.exec("b", &["dd", "if=/dev/zero", "of=/www/big", "bs=1M", "count=2"]).unwrap();
        // 16.8 Mbit at 4 Mbit/s.
        let slow = retry(20, || match transfer(s, "a", "b") {
            t if t > 2.5 => Ok(t),
            t => Err(format!("2 MB in {t:.1} s under a limit of 4 Mbit/s")),
        });
        s.step(&format!("2 MB leave a pod with egress_rate 4 in {slow:.1} s"));
        s.kubectl(&["annotate", "pod", "b", "ovn.kubernetes.io/egress_rate-"]).unwrap();
        let fast = retry(20, || match transfer(s, "a", "b") {
            t if t < 2.5 => Ok(t),
            t => Err(format!("2 MB in {t:.1} s without a limit")),
        });
        s.step(&format!("without it in {fast:.1} s"));
        s.kubectl(&["annotate", "pod", "a", "ovn.kubernetes.io/ingress_rate=4"]).unwrap();
        let slow = retry(20, || match transfer(s, "a", "b") {
            t if t > 2.5 => Ok(t),
            t => Err(format!("2 MB in {t:.1} s under a limit of 4 Mbit/s")),
        });
        s.step(&format!("2 MB reach a pod with ingress_rate 4 in {slow:.1} s"));
        // The mirror holds the port of the pod that asks for it.
        let rows =
            s.cluster.vsctl(&nodes[1].name, &["--bare", "get", "mirror", "m0", "select_dst_port"]);
        assert!(rows.expect("mirror m0").trim().len() > 2, "one port is mirrored");
        // This kernel may have netem or not: either it delays, or the pod is told.
        let d = s.ip("d");
        let delayed = s.exec("a", &["ping", "-c", "3", "-q", &d]).expect("ping");
        if !delayed.contains("/5") {
            s.wait_event("d", "NetemUnavailable", &["sch_netem"]);
            s.step("a pod is told that the kernel has no netem");
        }
    });
}
