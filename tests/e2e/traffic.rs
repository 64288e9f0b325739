//! Who reaches whom, by packets.

use std::time::Instant;

use serde_json::json;

use crate::{
    cluster::retry,
    pods::{Pod, page_of},
    story::story,
};

#[test]
fn pods_on_one_and_on_different_nodes_talk() {
    story("pods", |s| {
        let nodes = s.cluster.nodes();
        let (first, second) = (&nodes[0], &nodes[1]);
        s.start(&[
            Pod::new("a").on(&first.name),
            Pod::new("b").on(&second.name),
            Pod::new("c").on(&first.name),
        ]);
        let [a, b, c] = ["a", "b", "c"].map(|pod| s.ip(pod));
        s.pings("a", &c);
        s.pings("a", &b);
        s.pings("b", &a);
        s.fetches("a", &page_of(&c), "c");
        s.fetches("a", &page_of(&b), "b");
        // Pods know each other by their own addresses.
        s.is_seen_as("a", &b, &a);
        s.is_seen_as("a", &c, &a);
        // Segments with checksums that no NIC completes would stall a stream, not a ping.
        for server in ["b", "c"] {
            s.exec(server, &["dd", "if=/dev/zero", "of=/www/big", "bs=1M", "count=20"]).unwrap();
            let begun = Instant::now();
            let command = format!("wget -qO- -T 10 {}big | wc -c", page_of(&s.ip(server)));
            let size = s.exec("a", &["sh", "-c", &command]).expect("a stream of 20 MB");
            assert_eq!(size.trim(), "20971520", "bytes from {server}");
            let rate = 20.97 * 8.0 / begun.elapsed().as_secs_f64();
            s.step(&format!("20 MB from {server}, {rate:.0} Mbit/s or better"));
        }
    });
}

#[test]
fn pods_and_nodes_reach_each_other() {
    story("nodes", |s| {
        let nodes = s.cluster.nodes();
        let (first, second) = (&nodes[0], &nodes[1]);
        s.start(&[
            Pod::new("a").on(&first.name),
            Pod::new("b").on(&second.name),
            Pod::new("h").on(&second.name).in_host_network(8099),
        ]);
        let [a, b] = ["a", "b"].map(|pod| s.ip(pod));
        s.pings("a", &first.ip);
        s.pings("a", &second.ip);
        for node in [first, second] {
            for ip in [&a, &b] {
                let fetch = ["busybox", "wget", "-qO-", "-T", "2", &page_of(ip)];
                retry(20, || s.cluster.enter(&node.name, &fetch));
                s.step(&format!("{} fetches from {ip}", node.name));
            }
        }
        s.fetches("h", &page_of(&a), "a");
        s.fetches("h", &page_of(&b), "b");
        s.fetches("a", &format!("http://{}:8099/", second.ip), "h");
        s.fetches("b", &format!("http://{}:8099/", second.ip), "h");
    });
}

#[test]
fn pods_reach_services_by_address_and_by_name() {
    story("services", |s| {
        let nodes = s.cluster.nodes();
        s.start(&[
            Pod::new("client").on(&nodes[0].name),
            Pod::new("server").on(&nodes[1].name),
            Pod::new("near").on(&nodes[0].name),
        ]);
        for app in ["server", "near"] {
            s.cluster.apply(&[json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": app, "namespace": s.ns},
                "spec": {"selector": {"app": app}, "ports": [{"port": 80}]}})]);
            let service = s.cluster.objects(&["-n", &s.ns, "service", app]).remove(0);
            let address = service["spec"]["clusterIP"].as_str().unwrap().to_owned();
            s.fetches("client", &page_of(&address), app);
            s.fetches("client", &format!("http://{app}.{}/", s.ns), app);
            // The pod behind the Service calls itself through it.
            s.fetches(app, &page_of(&address), app);
        }
    });
}

#[test]
fn pods_leave_with_the_address_of_their_node() {
    story("outside", |s| {
        let nodes = s.cluster.nodes();
        s.cluster.outside_tells_addresses();
        s.start(&[Pod::new("a").on(&nodes[0].name), Pod::new("b").on(&nodes[1].name)]);
        let outside = s.cluster.outside();
        s.pings("a", outside);
        s.fetches("a", &page_of(outside), "outside");
        s.is_seen_as("a", outside, &nodes[0].ip);
        s.is_seen_as("b", outside, &nodes[1].ip);
    });
}
