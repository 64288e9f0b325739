//! Ways out of the cluster: gateway types, failover, external addresses, rates.

use std::time::Instant;

use serde_json::{Value, json};

use crate::{
    cluster::{longest_gap, retry, text},
    pods::{Pod, page_of},
    story::{Story, story},
};

const SUBNET: &str = "e2e-gateway";
const CIDR: &str = "10.77.0.0/16";

fn in_subnet(name: &str) -> Pod {
    Pod::new(name).with("logical_switch", SUBNET)
}

fn centralized(nodes: &str) -> Value {
    json!({"cidrBlock": CIDR, "natOutgoing": true, "gatewayType": "centralized",
        "gatewayNode": nodes})
}

fn active(s: &Story) -> String {
    let subnet = s.cluster.objects(&["subnet", SUBNET]).remove(0);
    text(&subnet["status"]["activateGateway"])
}

/// The address under which the pod is seen outside becomes `source`.
fn becomes_seen_as(s: &Story, pod: &str, source: &str) {
    let url = format!("http://{}/cgi-bin/me", s.cluster.outside());
    retry(30, || {
        let seen = s.exec(pod, &["wget", "-qO-", "-T", "2", &url])?;
        let seen = seen.trim().trim_matches(['[', ']']).trim_start_matches("::ffff:");
        if seen == source { Ok(()) } else { Err(format!("seen as {seen}, not {source}")) }
    });
    s.step(&format!("{pod} leaves with {source}"));
}

#[test]
fn a_gateway_type_switch_disturbs_nobody_else() {
    story("gateway-type", |s| {
        let nodes = s.cluster.nodes();
        s.cluster.outside_tells_addresses();
        s.subnet(SUBNET, json!({"cidrBlock": CIDR, "natOutgoing": true}));
        s.start(&[
            in_subnet("a").on(&nodes[0].name),
            Pod::new("x").on(&nodes[0].name),
            Pod::new("y").on(&nodes[1].name),
        ]);
        let y = s.ip("y");
        s.pings("x", &y);
        becomes_seen_as(s, "a", &nodes[0].ip);
        std::thread::scope(|scope| {
            // 100 echoes per second between pods of another subnet, while all this happens.
            let ping = ["ping", "-q", "-i", "0.01", "-c", "1500", "-W", "1", &y];
            let (cluster, ns) = (s.cluster, s.ns.as_str());
            let exec = ["-n", ns, "exec", "x", "--"];
            let watcher = scope.spawn(move || cluster.kubectl(&[&exec[..], &ping[..]].concat()));
            s.put_subnet(SUBNET, centralized(&nodes[1].name));
            becomes_seen_as(s, "a", &nodes[1].ip);
            assert_eq!(active(s), nodes[1].name);
            // A second node does not take the role away.
            let both = format!("{},{}", nodes[2].name, nodes[1].name);
            s.put_subnet(SUBNET, centralized(&both));
            std::thread::sleep(std::time::Duration::from_secs(1));
            assert_eq!(active(s), nodes[1].name, "sticky");
            s.put_subnet(
                SUBNET,
                json!({"cidrBlock": CIDR, "natOutgoing": true,
                "gatewayType": "distributed", "gatewayNode": ""}),
            );
            becomes_seen_as(s, "a", &nodes[0].ip);
            let report = watcher.join().unwrap().expect("ping between untouched pods");
            assert!(report.contains(" 0% packet loss"), "{report}");
            s.step("1500 echoes between untouched pods: none lost");
        });
    });
}

#[test]
fn a_dead_gateway_node_is_replaced_within_seconds() {
    story("failover", |s| {
        let nodes = s.cluster.nodes();
        s.cluster.outside_tells_addresses();
        let [_, second, third] = &nodes[..3] else { unreachable!() };
        s.subnet(SUBNET, centralized(&format!("{},{}", second.name, third.name)));
        s.start(&[in_subnet("a").on(&nodes[0].name)]);
        becomes_seen_as(s, "a", &second.ip);
        let outside = s.cluster.outside();
        std::thread::scope(|scope| {
            let ping = ["ping", "-i", "0.05", "-c", "200", "-W", "1", outside];
            let (cluster, ns) = (s.cluster, s.ns.as_str());
            let exec = ["-n", ns, "exec", "a", "--"];
            let watcher = scope.spawn(move || cluster.kubectl(&[&exec[..], &ping[..]].concat()));
            std::thread::sleep(std::time::Duration::from_secs(2));
            // Its tunnels end; its kubelet goes on, so Kubernetes takes it for healthy.
            let cut = s.cluster.enter(&second.name, &["ip", "link", "set", "eth1", "down"]);
            cut.expect("cut the tunnels of the gateway");
            let result = retry_quietly(|| active(s) == third.name);
            let heal = s.cluster.enter(&second.name, &["ip", "link", "set", "eth1", "up"]);
            heal.expect("heal the tunnels");
            assert!(result, "the other node takes over");
            let report = watcher.join().unwrap().unwrap_or_else(|e| e);
            let gap = longest_gap(&report);
            s.step(&format!(
                "{} takes over; {:.2} s without answers",
                third.name,
                gap as f64 * 0.05
            ));
            assert!(gap < 100, "less than 5 s on a busy machine\n{report}");
        });
        becomes_seen_as(s, "a", &third.ip);
    });
}

fn retry_quietly(mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + std::time::Duration::from_secs(15);
    while Instant::now() < end {
        if holds() {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    false
}

#[test]
fn a_gateway_node_leaves_with_the_address_given_for_it() {
    story("egress-address", |s| {
        let nodes = s.cluster.nodes();
        s.cluster.outside_tells_addresses();
        let (prefix, last) = nodes[1].ip.rsplit_once('.').expect("an IPv4 cluster");
        let extra = format!("{prefix}.{}", last.parse::<u8>().unwrap() + 100);
        let alias = format!("{extra}/32");
        s.cluster
            .enter(&nodes[1].name, &["ip", "address", "add", &alias, "dev", "eth0"])
            .expect("a second address");
        s.subnet(SUBNET, centralized(&format!("{}:{extra}", nodes[1].name)));
        s.start(&[in_subnet("a").on(&nodes[0].name)]);
        becomes_seen_as(s, "a", &extra);
        let _ = s.cluster.enter(&nodes[1].name, &["ip", "address", "del", &alias, "dev", "eth0"]);
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

#[test]
fn pods_have_external_addresses() {
    story("eip", |s| {
        let nodes = s.cluster.nodes();
        let config = |enabled: &str| {
            json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "ovn-external-gw-config", "namespace": "kube-system"},
                "data": {"enable-external-gw": enabled, "external-gw-nodes": nodes[1].name,
                    "external-gw-nic": "eth2", "external-gw-addr": "172.30.2.1/24",
                    "nic-ip": "172.30.2.200/24"}})
        };
        s.cluster.outside_tells_addresses();
        s.cluster.apply(&[config("true")]);
        s.start(&[
            Pod::new("a").on(&nodes[0].name).with("eip", "172.30.2.210"),
            Pod::new("b").on(&nodes[2].name).with("snat", "172.30.2.211"),
        ]);
        retry(30, || s.cluster.enter("fabric", &["ping", "-c", "1", "-W", "1", "172.30.2.210"]));
        s.step("the outside reaches the pod under its external address");
        s.pings("a", "172.30.2.1");
        s.is_seen_as("a", "172.30.2.1", "172.30.2.210");
        s.is_seen_as("b", "172.30.2.1", "172.30.2.211");
        // East-west stays: on stock OVN a source route would break it.
        s.pings("a", &s.ip("b"));
        s.kubectl(&["annotate", "--overwrite", "pod", "a", "ovn.kubernetes.io/eip=172.30.2.220"])
            .unwrap();
        retry(30, || s.cluster.enter("fabric", &["ping", "-c", "1", "-W", "1", "172.30.2.220"]));
        s.step("another address, without a restart of the pod");
        s.kubectl(&["annotate", "pod", "a", "ovn.kubernetes.io/eip-"]).unwrap();
        retry(30, || {
            let ping = ["ping", "-c", "1", "-W", "1", "172.30.2.220"];
            match s.cluster.enter("fabric", &ping) {
                Ok(_) => Err("still answers".to_owned()),
                Err(_) => Ok(()),
            }
        });
        s.step("and gone");
        s.cluster.apply(&[config("false")]);
        retry(30, || {
            let bridges = s.cluster.vsctl(&nodes[1].name, &["list-br"])?;
            if bridges.contains("br-external") { Err(bridges) } else { Ok(()) }
        });
        s.step("the bridge goes with the configuration");
        let remove = ["-n", "kube-system", "delete", "configmap", "ovn-external-gw-config"];
        s.cluster.kubectl(&remove).unwrap();
        let label = ["label", "node", &nodes[1].name, "ovn.kubernetes.io/external-gw-"];
        s.cluster.kubectl(&label).unwrap();
    });
}
