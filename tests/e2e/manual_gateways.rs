//! Ways out of the cluster as the manual prints them: 7.7 routes, 7.13 external gateway, 7.24 NAT
//! policy rules, 3.7 routes of pods. The `fabric` plays the world outside.

use serde_json::{Value, json};

use crate::{
    cluster::{another_in_its_network, retry, text},
    guard::{Undo, undo},
    pods::{Pod, page_of},
    story::{Story, story},
};

/// A command in the world outside, and the one that takes it back.
fn outside<'a>(s: &'a Story, command: &[&str], back: &'a [&'a str]) -> Undo<'a> {
    // Left over by an earlier, aborted run.
    let _ = s.cluster.enter("fabric", back);
    s.cluster.enter("fabric", command).expect("a command in the world outside");
    undo(move || drop(s.cluster.enter("fabric", back)))
}

/// A spec with more fields.
fn with(mut spec: Value, more: Value) -> Value {
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

/// The world outside opens a connection to the pod and gets its page.
fn reached_from_outside(s: &Story, pod: &str) {
    let url = page_of(&s.ip(pod));
    retry(60, || {
        let page = s.cluster.ask_from_outside(&["wget", "-qO-", "-T", "2", &url])?;
        if page.trim() == pod { Ok(()) } else { Err(page) }
    });
    s.step(&format!("the outside fetches {url}"));
}

#[test]
fn routed_overlay() {
    story("manual-7-7", |s| {
        let nodes = s.cluster.nodes();
        s.cluster.outside_tells_addresses();
        let cidr = s.cluster.choose("10.166.0.0/16", "fd00:10:166::/112");
        let router = s.cluster.choose("10.166.0.1", "fd00:10:166::1");
        let routed = |gateway: Value| {
            let spec = json!({"cidrBlock": cidr, "default": false, "excludeIps": [router],
                "gateway": router, "natOutgoing": false});
            with(spec, gateway)
        };
        s.subnet("routed", routed(json!({"gatewayType": "distributed"})));
        s.start(&[Pod::new("a").on(&nodes[1].name).with("logical_switch", "routed")]);
        let remove = ["ip", "route", "del", cidr];
        let back = outside(s, &["ip", "route", "add", cidr, "via", &nodes[1].ip], &remove);
        s.becomes_seen_as("a", s.cluster.outside(), &s.ip("a"));
        reached_from_outside(s, "a");
        drop(back);
        s.put_subnet(
            "routed",
            routed(json!({"gatewayType": "centralized", "gatewayNode": nodes[0].name})),
        );
        let _back = outside(s, &["ip", "route", "add", cidr, "via", &nodes[0].ip], &remove);
        s.becomes_seen_as("a", s.cluster.outside(), &s.ip("a"));
        reached_from_outside(s, "a");
        s.step("the same through the gateway node");
    });
}

#[test]
fn nat_policy_rules() {
    story("manual-7-24", |s| {
        let nodes = s.cluster.nodes();
        s.cluster.outside_tells_addresses();
        let choose = |v4: &'static str, v6: &'static str| s.cluster.choose(v4, v6);
        let cidr = choose("10.0.11.0/24", "fd00:10:11::/112");
        let dns = choose("8.8.8.8", "2001:4860:4860::8888");
        let low = choose("10.0.11.2", "fd00:10:11::2");
        let last = choose("10.0.11.254", "fd00:10:11::fe");
        let forward = choose("10.0.11.0/30,10.0.11.254", "fd00:10:11::/126,fd00:10:11::fe");
        let some = choose("114.114.114.114,8.8.8.8", "2001:4860:4860::8888");
        let rules = json!([
            {"action": "forward", "match": {"srcIPs": forward}},
            {"action": "nat", "match": {"srcIPs": choose("10.0.11.128/26", "fd00:10:11::80/122"),
                "dstIPs": some}},
            // Beyond the print: the first rule that matches decides.
            {"action": "nat", "match": {"srcIPs": cidr}},
        ]);
        let spec = |gateway: Value| {
            let spec =
                json!({"cidrBlock": cidr, "natOutgoing": true, "natOutgoingPolicyRules": rules});
            with(spec, gateway)
        };
        s.subnet("manual-nat", spec(json!({"gatewayType": "distributed"})));
        let at = |name: &str, ip: &str| {
            let pod = Pod::new(name).on(&nodes[1].name).with("logical_switch", "manual-nat");
            pod.with("ip_address", ip)
        };
        let high = choose("10.0.11.130", "fd00:10:11::82");
        s.start(&[at("low", low), at("last", last), at("high", high)]);
        let remove = ["ip", "route", "del", cidr];
        let back = outside(s, &["ip", "route", "add", cidr, "via", &nodes[1].ip], &remove);
        let remove_dns = ["ip", "address", "del", dns, "dev", "lo"];
        let _dns = outside(s, &["ip", "address", "add", dns, "dev", "lo"], &remove_dns);
        s.becomes_seen_as("low", dns, low);
        s.becomes_seen_as("last", dns, last);
        s.becomes_seen_as("high", dns, &nodes[1].ip);
        s.becomes_seen_as("high", s.cluster.outside(), &nodes[1].ip);
        drop(back);
        // What is translated has the address of the subnet's gateway.
        let extra = another_in_its_network(&nodes[0].ip);
        let eth0 = |verb: &str| {
            s.cluster.enter(&nodes[0].name, &["ip", "address", verb, &extra, "dev", "eth0"])
        };
        let _ = eth0("del");
        eth0("add").expect("a second address of the node");
        let _alias = undo(|| drop(eth0("del")));
        let node = format!("{}:{extra}", nodes[0].name);
        s.put_subnet(
            "manual-nat",
            spec(json!({"gatewayType": "centralized", "gatewayNode": node})),
        );
        let _back = outside(s, &["ip", "route", "add", cidr, "via", &nodes[0].ip], &remove);
        s.becomes_seen_as("high", dns, &extra);
        s.becomes_seen_as("low", dns, low);
    });
}

/// Packets that an interface of the outside got so far.
fn received(s: &Story, interface: &str) -> u64 {
    let shown = s.cluster.enter("fabric", &["ip", "-s", "-o", "link", "show", "dev", interface]);
    let shown = shown.expect("statistics of the outside");
    let words = shown.split("RX:").nth(1).and_then(|t| t.split('\\').nth(1)).unwrap_or_default();
    let packets = words.split_whitespace().nth(1).and_then(|t| t.parse().ok());
    packets.unwrap_or_else(|| panic!("no counter in {shown}"))
}

#[test]
fn external_egress_gateway() {
    story("manual-7-13", |s| {
        let nodes = s.cluster.nodes();
        s.cluster.outside_tells_addresses();
        // The gateway node reaches the external gateway over its third NIC.
        let node = nodes[1].name.as_str();
        let own = s.cluster.choose("172.30.2.99/24", "fd00:172:30:2::99/64");
        let gateway = s.cluster.choose("172.30.2.1", "fd00:172:30:2::1");
        let cidr = s.cluster.choose("172.29.0.0/16", "fd00:172:29::/112");
        let eth2 = |verb: &str| s.cluster.enter(node, &["ip", "address", verb, own, "dev", "eth2"]);
        let _ = eth2("del");
        eth2("add").expect("an address on eth2");
        let _address = undo(|| drop(eth2("del")));
        s.cluster.enter(node, &["ip", "link", "set", "eth2", "up"]).expect("eth2 up");
        let via = own.split('/').next().unwrap_or_default();
        let remove = ["ip", "route", "del", cidr];
        let _route = outside(s, &["ip", "route", "add", cidr, "via", via], &remove);
        s.subnet(
            "manual-external",
            json!({"cidrBlock": cidr, "gatewayType": "centralized", "gatewayNode": node,
                "natOutgoing": false, "externalEgressGateway": gateway,
                "policyRoutingTableID": 1000, "policyRoutingPriority": 1500}),
        );
        s.start(&[Pod::new("a").on(&nodes[0].name).with("logical_switch", "manual-external")]);
        s.becomes_seen_as("a", s.cluster.outside(), &s.ip("a"));
        let before = received(s, "br2");
        let ping = ["ping", "-q", "-i", "0.05", "-c", "20", "-W", "2", s.cluster.outside()];
        let report = s.exec("a", &ping).expect("echoes through the external gateway");
        let passed = received(s, "br2") - before;
        assert!(passed >= 20, "{passed} packets reached the external gateway\n{report}");
        s.step(&format!("20 echoes: {passed} packets came over the external gateway's network"));
        let family = s.cluster.choose("-4", "-6");
        let rules = s.cluster.enter(node, &["ip", family, "rule", "show"]).expect("ip rules");
        assert!(rules.lines().any(|l| l.starts_with("1500:") && l.contains("1000")), "{rules}");
    });
}

/// Packets for addresses that are not the pod's own.
fn strangers(s: &Story, pod: &str) -> u64 {
    let snmp = s.exec(pod, &["cat", "/proc/net/snmp"]).expect("counters of the pod");
    let mut lines = snmp.lines().filter(|l| l.starts_with("Ip: ")).map(|l| l.split(' '));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let counters: Vec<_> = names.zip(values).collect();
    let value = |wanted: &str| {
        let found = counters.iter().find(|(name, _)| *name == wanted);
        found.and_then(|(_, value)| value.parse::<u64>().ok()).expect(wanted)
    };
    value("InAddrErrors") + value("ForwDatagrams")
}

#[test]
fn custom_routes() {
    story("manual-3-7", |s| {
        let routes = r#"[{
        "dst": "192.168.0.101/24",
        "gw": "10.16.0.254"
      }, {
        "gw": "10.16.0.254"
      }]"#;
        s.start(&[
            Pod::new("gw").with("logical_switch", "ovn-default").with("ip_address", "10.16.0.254"),
            Pod::new("custom-routes").with("logical_switch", "ovn-default").with("routes", routes),
        ]);
        let table = s.exec("custom-routes", &["ip", "route"]).expect("routes of the pod");
        for route in ["default via 10.16.0.254", "192.168.0.0/24 via 10.16.0.254"] {
            assert!(table.contains(route), "{route} in {table}");
        }
        let before = strangers(s, "gw");
        for target in ["192.168.0.7", s.cluster.outside()] {
            let _ = s.exec("custom-routes", &["ping", "-c", "3", "-i", "0.2", "-W", "1", target]);
        }
        let passed = strangers(s, "gw") - before;
        assert!(passed >= 6, "{passed} of 6 packets came to the next hop");
        s.step("what the routes name goes to their next hop");
    });
}

#[test]
fn dhcp() {
    story("manual-dhcp", |s| {
        s.subnet(
            "manual-dhcp",
            json!({"cidrBlock": "10.65.0.0/24", "enableDHCP": true,
                "dhcpV4Options": "lease_time=3600,router=10.65.0.1,server_id=169.254.0.254,server_mac=00:00:00:2E:2F:B8,dns_server=10.65.0.53"}),
        );
        s.start(&[Pod::new("a").with("logical_switch", "manual-dhcp")]);
        let script = "#!/bin/sh\nif [ \"$1\" = bound ]; then env | sort; fi\n";
        let ask = format!(
            "printf '%s' '{script}' >/tmp/told && chmod 755 /tmp/told && \
             udhcpc -i eth0 -n -q -f -t 5 -T 1 -s /tmp/told 2>&1"
        );
        let told = retry(30, || s.exec("a", &["sh", "-c", &ask]));
        let ip = s.ip("a");
        for line in [
            &format!("ip={ip}"),
            "router=10.65.0.1",
            "dns=10.65.0.53",
            "lease=3600",
            "mask=24",
            "serverid=169.254.0.254",
        ] {
            assert!(told.lines().any(|l| l == line), "{line} in {told}");
        }
        let status = s.cluster.objects(&["subnet", "manual-dhcp"]).remove(0)["status"].clone();
        assert!(!text(&status["dhcpV4OptionsUUID"]).is_empty(), "{status}");
        s.step("a DHCP client of a pod is told the pod's address and the subnet's options");
    });
}
