//! `spec.vips` of a subnet: an address that moves between pods, as VRRP moves it.

use serde_json::json;

use crate::{cluster::retry, pods::Pod, story::story};

#[test]
fn virtual_address_follows_the_pod_that_speaks_for_it() {
    story("vips", |s| {
        let nodes = s.cluster.nodes();
        let (subnet, vip) = ("e2e-vips", "10.77.0.100");
        s.subnet(subnet, json!({"cidrBlock": "10.77.0.0/24", "vips": [vip]}));
        s.wait_condition(subnet, "Ready", "True");
        let keeper = |name: &str, node: &str| {
            let pod = Pod::new(name).on(node).with("logical_switch", subnet);
            pod.with("port_vips", vip).with("port_security", "true").allowed("NET_ADMIN")
        };
        s.start(&[
            keeper("one", &nodes[0].name),
            keeper("two", &nodes[1].name),
            Pod::new("near").on(&nodes[0].name).with("logical_switch", subnet),
            Pod::new("far").on(&nodes[1].name),
        ]);
        let port = format!("{subnet}-vip-{vip}");
        let options = s.cluster.nbctl(&["get", "Logical_Switch_Port", &port, "options"]).unwrap();
        assert!(options.contains("one.") && options.contains("two."), "{options}");
        s.never_pings("far", vip);
        for (master, backup) in [("one", "two"), ("two", "one")] {
            let address = format!("{vip}/32");
            let _ = s.exec(backup, &["ip", "addr", "del", &address, "dev", "eth0"]);
            s.exec(master, &["ip", "addr", "add", &address, "dev", "eth0"]).unwrap();
            for client in ["near", "far"] {
                let page = retry(30, || {
                    s.exec(master, &["arping", "-U", "-c", "1", "-I", "eth0", vip])?;
                    let url = format!("http://{vip}/");
                    let page = s.exec(client, &["wget", "-qO-", "-T", "2", &url])?;
                    if page.trim() == master { Ok(page) } else { Err(format!("{page:?} answers")) }
                });
                s.step(&format!("{client} finds {} at {vip}", page.trim()));
            }
        }
        s.put_subnet(subnet, json!({"cidrBlock": "10.77.0.0/24"}));
        retry(30, || match s.cluster.nbctl(&["find", "Logical_Switch_Port", "type=virtual"]) {
            Ok(found) if found.trim().is_empty() => Ok(()),
            found => Err(format!("virtual ports are left: {found:?}")),
        });
        s.step("no virtual port without spec.vips");
    });
}
