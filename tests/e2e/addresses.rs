//! Addresses that users ask for.

use crate::{
    cluster::{retry, text},
    pods::Pod,
    story::{Story, story},
};

const REFUSED: &str = "AcquireAddressFailed";
/// Of the default subnet, far from where allocation begins.
const FIXED: &str = "10.16.200.7";
const MAC: &str = "00:00:00:53:6b:07";

fn ip_object(s: &Story, pod: &str) -> serde_json::Value {
    s.cluster.objects(&["ips.kubeovn.io", &format!("{pod}.{}", s.ns)]).remove(0)
}

#[test]
fn fixed_address_and_mac_are_given() {
    story("fixed-address", |s| {
        let nodes = s.cluster.nodes();
        s.start(&[
            Pod::new("fixed").on(&nodes[0].name).with("ip_address", FIXED).with("mac_address", MAC),
            Pod::new("peer").on(&nodes[1].name),
        ]);
        assert_eq!(s.ip("fixed"), FIXED);
        let mac = s.exec("fixed", &["cat", "/sys/class/net/eth0/address"]).unwrap();
        assert_eq!(mac.trim(), MAC);
        let spec = ip_object(s, "fixed")["spec"].clone();
        assert_eq!(
            (text(&spec["v4IpAddress"]), text(&spec["macAddress"])),
            (FIXED.into(), MAC.into())
        );
        let port = format!("fixed.{}", s.ns);
        let addresses = s.cluster.nbctl(&["lsp-get-addresses", &port]).unwrap();
        assert_eq!(addresses.trim(), format!("{MAC} {FIXED}"));
        s.step("pod, IP object and port agree");
        s.pings("peer", FIXED);
        // The same pod again: the address is free in time.
        s.delete_pods(&["fixed"]);
        s.start(&[Pod::new("fixed").on(&nodes[1].name).with("ip_address", FIXED)]);
        assert_eq!(s.ip("fixed"), FIXED);
        s.pings("peer", FIXED);
    });
}

#[test]
fn taken_address_is_refused_with_its_holder_named() {
    story("taken-address", |s| {
        let fixed = |name: &str| Pod::new(name).with("ip_address", FIXED);
        s.start(&[fixed("holder")]);
        s.create(&[fixed("late"), Pod::new("other")]);
        s.wait_event("late", REFUSED, &[FIXED, "holder"]);
        s.step("the late pod's event names address and holder");
        s.wait_ready(&["other"]);
        s.pings("other", FIXED);
        s.create(&[Pod::new("copied")
            .with("mac_address", &text(&ip_object(s, "holder")["spec"]["macAddress"]))]);
        s.wait_event("copied", REFUSED, &["holder"]);
        s.step("a copied MAC is refused too");
        s.delete_pods(&["holder", "copied"]);
        s.wait_ready(&["late"]);
        assert_eq!(s.ip("late"), FIXED);
        s.step("the late pod starts when the holder is gone");
    });
}

#[test]
fn wrong_annotations_are_explained_and_harm_nobody_else() {
    story("wrong-annotations", |s| {
        let wrong = [
            ("no-ip", "ip_address", "10.16.0.999"),
            ("outside", "ip_address", "192.0.2.7"),
            ("gateway", "ip_address", "10.16.0.1"),
            ("no-mac", "mac_address", "00:00:00:zz:00:01"),
            ("multicast", "mac_address", "01:00:5e:00:00:01"),
            ("no-pool", "ip_pool", "no-such-pool"),
            ("no-cidr", "cidr", "10.16.0.0/99"),
        ];
        let mut pods: Vec<Pod> =
            wrong.iter().map(|(p, key, value)| Pod::new(p).with(key, value)).collect();
        pods.push(Pod::new("fine"));
        s.create(&pods);
        s.wait_ready(&["fine"]);
        for (pod, key, value) in wrong {
            retry(30, || {
                let events = s.cluster.objects(&["-n", &s.ns, "events"]);
                let told = events.iter().any(|e| {
                    e["involvedObject"]["name"] == pod
                        && e["type"] == "Warning"
                        && text(&e["message"]).contains(value)
                });
                if told { Ok(()) } else { Err(format!("no event of {pod} holds {value}")) }
            });
            assert!(s.pod(pod)["status"]["podIP"].is_null(), "{pod} must not get an address");
            s.step(&format!("{key}={value}: event"));
        }
    });
}

#[test]
fn pod_on_a_missing_subnet_waits_for_it() {
    story("missing-subnet", |s| {
        let subnet = "e2e-later";
        s.create(&[Pod::new("early").with("logical_switch", subnet), Pod::new("other")]);
        s.wait_event("early", REFUSED, &[subnet, "logical_switch"]);
        s.wait_ready(&["other"]);
        s.step("event names annotation and subnet");
        s.subnet(subnet, serde_json::json!({"cidrBlock": "10.67.0.0/24"}));
        s.wait_ready(&["early"]);
        assert!(s.ip("early").starts_with("10.67.0."));
        s.step("the pod starts once the subnet is there");
        s.pings("other", &s.ip("early"));
    });
}
