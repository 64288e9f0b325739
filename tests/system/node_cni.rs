//! CNI requests on a real node: plugin executable, server, kernel, Open vSwitch.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use kube_ovn::{
    api::Kind,
    cni::wire::{Attachment, GcRequest, Request},
    kernel::{Effort, Netlink},
    net::{Mac, Place, VethPair},
    node::{ovs_rows::observe_port, state::Change},
};
use serde_json::json;

use crate::node_rig::{GATEWAY, Sandbox, bare_pod, on_node, pod, subnet, wait_until};

#[test]
fn add_twice_check_and_del_twice() {
    on_node(|node| async move {
        node.install_ports();
        node.upsert(pod("web-0", "u1", "10.16.0.5,fd00::5"));
        let sandbox = Sandbox::new("web-0", "u1");
        let started = Instant::now();
        let result = node.add(&sandbox).await;
        println!("ADD took {:?}", started.elapsed());
        assert_eq!(result["ips"][0]["address"], "10.16.0.5/16");
        assert_eq!(result["ips"][1]["address"], "fd00::5/64");
        assert_eq!(result["ips"][0]["gateway"], GATEWAY);
        assert_eq!(result["interfaces"][0]["name"], "eth0");
        let routes = result["routes"].as_array().unwrap();
        assert!(routes.contains(&json!({"dst": "0.0.0.0/0", "gw": GATEWAY})), "{result}");
        let again = node.add(&sandbox).await;
        assert_eq!(again, result, "the same ADD again changes nothing");
        assert_eq!(node.pod_ports(), [sandbox.host_end()]);
        let ids = ["get", "Interface", &sandbox.host_end(), "external_ids"].map(str::to_owned);
        let ids = node.vsctl(&ids.each_ref().map(String::as_str));
        for text in
            ["iface-id=web-0.shop", "vendor=kube-ovn", "pod_namespace=shop", "pod_name=web-0"]
        {
            assert!(ids.contains(text), "{ids}");
        }
        let request = Request {
            container_id: sandbox.container.clone(),
            net_ns: sandbox.netns.clone(),
            if_name: "eth0".into(),
            ..Request::default()
        };
        node.attacher.check(&request).await.unwrap();
        node.del(&sandbox).await;
        node.assert_clean();
        node.del(&sandbox).await;
        assert!(node.attacher.check(&request).await.is_err());
    });
}

/// Work of the kernel for one NIC: one visit to the pod's namespace and no dump of anything.
#[test]
fn an_add_costs_the_same_whatever_runs_on_the_node() {
    on_node(|node| async move {
        node.install_ports();
        let mut sandboxes = Vec::new();
        for number in 0..6 {
            let name = format!("web-{number}");
            node.upsert(pod(&name, "u1", &format!("10.16.0.{}", 10 + number)));
            let sandbox = Sandbox::new(&name, "u1");
            let added = node.attacher.add(&request(&sandbox, &name), &Default::default()).await;
            let once = Effort { sockets: 2, requests: 8, dumps: 0 };
            assert_eq!(added.unwrap().effort, Some(once), "pod {number}");
            sandboxes.push((name, sandbox));
        }
        // What is there already is looked at more closely, and left alone.
        let (name, sandbox) = &sandboxes[0];
        let again = node.attacher.add(&request(sandbox, name), &Default::default()).await;
        let look = Effort { sockets: 2, requests: 2, dumps: 4 };
        assert_eq!(again.unwrap().effort, Some(look));
        for (_, sandbox) in &sandboxes {
            node.del(sandbox).await;
        }
        node.assert_clean();
    });
}

fn request(sandbox: &Sandbox, pod: &str) -> Request {
    Request {
        cni_type: "kube-ovn".into(),
        pod_name: pod.into(),
        pod_namespace: "shop".into(),
        container_id: sandbox.container.clone(),
        net_ns: sandbox.netns.clone(),
        if_name: "eth0".into(),
        provider: "ovn".into(),
        ..Request::default()
    }
}

#[test]
fn del_without_add_and_after_reboot_is_silent() {
    on_node(|node| async move {
        let mut sandbox = Sandbox::new("never", "u1");
        node.del(&sandbox).await;
        sandbox.netns = "/var/run/netns/gone".into();
        node.del(&sandbox).await;
        sandbox.netns = String::new();
        node.del(&sandbox).await;
        sandbox.container = "short".into();
        node.del(&sandbox).await;
    });
}

#[test]
fn add_sleeps_until_the_annotations_and_the_flows_are_there() {
    on_node(|node| async move {
        let sandbox = Sandbox::new("web-0", "u1");
        let add = async {
            let result = node.add(&sandbox).await;
            (Instant::now(), result)
        };
        let controller = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            node.upsert(bare_pod("web-0", "u1"));
            tokio::time::sleep(Duration::from_millis(100)).await;
            let mut half = pod("web-0", "u1", "10.16.0.6");
            half.annotations.remove("ovn.kubernetes.io/routed");
            node.upsert(half);
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(node.pod_ports().len(), 0, "not routed yet");
            node.upsert(pod("web-0", "u1", "10.16.0.6"));
            wait_until("the port", || node.pod_ports().len() == 1).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            node.install_ports();
            Instant::now()
        };
        let ((done, _), installed) = tokio::join!(add, controller);
        let late = done.saturating_duration_since(installed);
        println!("ADD ended {late:?} after the flows were announced");
        assert!(late < Duration::from_millis(500), "{late:?}");
        node.del(&sandbox).await;
    });
}

/// BUG 8: upstream leaks the veth pair when the port cannot be added; nothing may stay behind.
#[test]
fn bug_8_a_failed_add_leaves_nothing() {
    on_node(|node| async move {
        let attacher = node.attacher.clone().with_budget(Duration::from_secs(1));
        node.upsert(pod("web-0", "u1", "10.16.0.5"));
        let sandbox = Sandbox::new("web-0", "u1");
        let request = request(&sandbox, "web-0");
        // No ovn-controller: the flows never come.
        let error = attacher.add(&request, &Default::default()).await.unwrap_err().to_string();
        assert!(error.contains("ovn-installed") && error.contains("web-0.shop"), "{error}");
        node.assert_clean();
        // No gateway: the flows come, the answer does not.
        node.install_ports();
        node.vsctl(&["del-port", "br-int", "gw"]);
        let error = attacher.add(&request, &Default::default()).await.unwrap_err().to_string();
        assert!(error.contains(GATEWAY), "{error}");
        node.assert_clean();
        // No bridge: the port cannot be added at all.
        node.vsctl(&["del-br", "br-int"]);
        let error = attacher.add(&request, &Default::default()).await.unwrap_err().to_string();
        assert!(error.contains("br-int"), "{error}");
        node.assert_clean();
    });
}

#[test]
fn a_killed_plugin_cancels_its_add() {
    on_node(|node| async move {
        node.upsert(pod("web-0", "u1", "10.16.0.5"));
        let sandbox = Sandbox::new("web-0", "u1");
        let mut plugin = node.plugin("ADD", &sandbox);
        wait_until("the port", || !node.pod_ports().is_empty()).await;
        plugin.kill().unwrap();
        plugin.wait().unwrap();
        wait_until("the rollback", || node.pod_ports().is_empty() && node.pod_links().is_empty())
            .await;
    });
}

#[test]
fn a_pod_deleted_during_add_ends_it() {
    on_node(|node| async move {
        node.upsert(pod("web-0", "u1", "10.16.0.5"));
        let sandbox = Sandbox::new("web-0", "u1");
        let delete = async {
            wait_until("the port", || !node.pod_ports().is_empty()).await;
            node.remove_pod("web-0");
        };
        let ((code, error), ()) = tokio::join!(node.cni("ADD", &sandbox), delete);
        assert_eq!((code, &error["code"]), (1, &json!(11)));
        assert!(error["details"].as_str().unwrap().contains("shop/web-0 was deleted"), "{error}");
        node.assert_clean();
    });
}

/// BUG 14: a DEL of the old sandbox must not touch the port of the new one, whatever comes first.
#[test]
fn bug_14_del_of_an_old_sandbox_spares_the_new_one() {
    on_node(|node| async move {
        node.install_ports();
        node.upsert(pod("web-0", "u1", "10.16.0.5"));
        let old = Sandbox::new("web-0", "u1");
        node.add(&old).await;
        node.upsert(pod("web-0", "u2", "10.16.0.7"));
        let new = Sandbox::new("web-0", "u2");
        node.add(&new).await;
        let id = |sandbox: &Sandbox| {
            let end = sandbox.host_end();
            let text =
                node.vsctl(&["--if-exists", "get", "Interface", &end, "external_ids:iface-id"]);
            text.trim_matches('"').to_owned()
        };
        assert_eq!((id(&old), id(&new)), (String::new(), "web-0.shop".to_owned()));
        node.del(&old).await;
        assert_eq!(node.pod_ports(), [new.host_end()]);
        assert_eq!(id(&new), "web-0.shop");
        assert_eq!(new.addresses()[0].to_string(), "10.16.0.7/16");
        node.del(&new).await;
        node.assert_clean();
    });
}

/// The watch may still show the predecessor of a StatefulSet pod: its address is not to be used.
#[test]
fn add_waits_for_the_pod_of_its_uid() {
    on_node(|node| async move {
        node.install_ports();
        node.upsert(pod("web-0", "u1", "10.16.0.5"));
        let sandbox = Sandbox::new("web-0", "u2");
        let successor = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(node.pod_ports().is_empty());
            node.upsert(pod("web-0", "u2", "10.16.0.8"));
        };
        let (result, ()) = tokio::join!(node.add(&sandbox), successor);
        assert_eq!(result["ips"][0]["address"], "10.16.0.8/16");
        node.del(&sandbox).await;
    });
}

#[test]
fn open_vswitch_killed_and_back() {
    on_node(|mut node| async move {
        node.install_ports();
        node.upsert(pod("web-0", "u1", "10.16.0.5"));
        let sandbox = Sandbox::new("web-0", "u1");
        node.switch.kill();
        node.db.kill();
        wait_until("the loss", || node.attacher.status().is_err()).await;
        let back = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            node.folder.0.clone()
        };
        let folder = back.await;
        node.restart_db();
        wait_until("the socket", || folder.join("db.sock").exists()).await;
        node.restart_switch();
        node.add(&sandbox).await;
        node.attacher.status().unwrap();
        node.switch.kill();
        node.restart_switch();
        node.del(&sandbox).await;
        node.assert_clean();
    });
}

/// A port whose namespace died with the machine or with a killed daemon goes away; others stay.
#[test]
fn ports_without_a_link_are_collected() {
    on_node(|node| async move {
        node.install_ports();
        node.upsert(pod("web-0", "u1", "10.16.0.5"));
        node.upsert(pod("web-1", "u2", "10.16.0.6,fd00::6"));
        let (dead, alive) = (Sandbox::new("web-0", "u1"), Sandbox::new("web-1", "u2"));
        node.add(&dead).await;
        node.add(&alive).await;
        Netlink::open(&kube_ovn::net::Place::Host).unwrap().delete_link(&dead.host_end()).unwrap();
        let removed = node.attacher.remove_stale().await.unwrap();
        assert_eq!(removed.iter().map(|t| t.to_string()).collect::<Vec<_>>(), [dead.host_end()]);
        assert_eq!(node.pod_ports(), [alive.host_end()]);
        assert!(node.attacher.remove_stale().await.unwrap().is_empty());
    });
}

fn attachment(sandbox: &Sandbox) -> Attachment {
    Attachment { container_id: sandbox.container.clone(), if_name: "eth0".into() }
}

/// CNI 1.1 GC: port and link of every sandbox that is not in the runtime's list go, although both
/// of its ends are there; those in it, and those of another network, work on.
#[test]
fn gc_removes_whole_attachments_and_spares_the_listed() {
    on_node(|node| async move {
        node.install_ports();
        let mut sandboxes = Vec::new();
        for (n, name) in ["kept", "lost", "other"].into_iter().enumerate() {
            node.upsert(pod(name, "u1", &format!("10.16.0.{}", 5 + n)));
            let sandbox = Sandbox::new(name, "u1");
            node.add(&sandbox).await;
            sandboxes.push(sandbox);
        }
        let [kept, lost, other] = &sandboxes[..] else { unreachable!() };
        let id = "external_ids:iface-id=other.shop.net1.shop.ovn";
        node.vsctl(&["set", "Interface", &other.host_end(), id]);
        let moved = || {
            let port = node.executor.vswitch().read(|r| observe_port(r, &other.host_end()));
            port.is_some_and(|p| p.external_ids["iface-id"].ends_with("net1.shop.ovn"))
        };
        wait_until("the other network", moved).await;
        // An ADD that was killed before it made its port.
        let mut host = Netlink::open(&Place::Host).unwrap();
        let half = Sandbox::new("half", "u1");
        host.create_veth(&VethPair {
            host: half.host_end().as_str().into(),
            peer: "eth0".into(),
            peer_place: half.namespace.place.clone(),
            peer_mac: Mac::local(1),
            mtu: None,
            host_queue_length: 1000,
        })
        .unwrap();
        let request =
            GcRequest { provider: "ovn".into(), valid_attachments: vec![attachment(kept)] };
        node.attacher.gc(&request).await.unwrap();
        let left = BTreeSet::from([kept.host_end(), other.host_end()]);
        assert_eq!(node.pod_links().into_iter().collect::<BTreeSet<_>>(), left);
        wait_until("the port to go", || {
            node.pod_ports().into_iter().collect::<BTreeSet<_>>() == left
        })
        .await;
        assert_eq!(lost.addresses(), vec![], "the pod's end went along");
        assert!(!kept.addresses().is_empty());
        node.attacher.gc(&request).await.unwrap();
        node.del(lost).await;
        node.del(kept).await;
        node.del(other).await;
        node.assert_clean();
    });
}

/// What a crash of the whole runtime leaves: NICs of pods that the API has forgotten, their
/// namespaces gone from the runtime's folder and kept alive by some process.
#[test]
fn a_start_removes_nics_of_pods_and_namespaces_that_are_gone() {
    on_node(|node| async move {
        node.install_ports();
        let mut sandboxes = Vec::new();
        for (n, name) in ["lives", "forced", "restarts", "gone"].into_iter().enumerate() {
            node.upsert(pod(name, "u1", &format!("10.16.0.{}", 5 + n)));
            let sandbox = Sandbox::new(name, "u1");
            node.add(&sandbox).await;
            sandboxes.push(sandbox);
        }
        let holders: Vec<_> =
            sandboxes.iter().map(|s| kube_ovn::kernel::netns::open(&s.netns).unwrap()).collect();
        let file = |n: usize| sandboxes[n].netns.rsplit('/').next().unwrap().to_owned();
        for n in [2, 3] {
            kube_ovn::kernel::netns::delete_named(&file(n)).unwrap();
        }
        for name in ["forced", "gone"] {
            node.remove_pod(name);
        }
        assert!(node.attacher.remove_stale().await.unwrap().is_empty(), "pods are not listed yet");
        node.cluster.apply([Change::Synced(Kind::Pod)]);
        let removed = node.attacher.remove_stale().await.unwrap();
        assert_eq!(removed, [sandboxes[3].host_end().as_str().into()]);
        assert_eq!(node.pod_links().len(), 3);
        wait_until("the port to go", || node.pod_ports().len() == 3).await;
        assert!(!sandboxes[0].addresses().is_empty());
        drop(holders);
    });
}

/// BUG 23: with disableGatewayCheck a silent gateway does not fail the ADD.
#[test]
fn bug_23_lenient_gateway_check_does_not_fail() {
    on_node(|node| async move {
        node.install_ports();
        node.vsctl(&["del-port", "br-int", "gw"]);
        let mut lenient = subnet();
        lenient.disable_gateway_check = true;
        node.cluster.apply([Change::Upsert(std::sync::Arc::new(lenient))]);
        node.upsert(pod("web-0", "u1", "10.16.0.5"));
        let sandbox = Sandbox::new("web-0", "u1");
        node.add(&sandbox).await;
        node.del(&sandbox).await;
    });
}

#[test]
fn a_burst_of_pods() {
    on_node(|node| async move {
        node.install_ports();
        let sandboxes: Vec<Sandbox> =
            (0..12).map(|n| Sandbox::new(&format!("web-{n}"), &format!("u{n}"))).collect();
        for (n, sandbox) in sandboxes.iter().enumerate() {
            node.upsert(pod(&sandbox.name, &sandbox.uid, &format!("10.16.1.{}", n + 1)));
        }
        let started = Instant::now();
        futures::future::join_all(sandboxes.iter().map(|s| node.add(s))).await;
        println!("{} ADDs took {:?}", sandboxes.len(), started.elapsed());
        assert_eq!(node.pod_ports().len(), sandboxes.len());
        futures::future::join_all(sandboxes.iter().map(|s| node.del(s))).await;
        node.assert_clean();
    });
}

/// Names hold only the first characters of a container id: a DEL must not hit its namesake.
#[test]
fn del_of_a_sandbox_with_the_same_first_characters_spares_the_other() {
    on_node(|node| async move {
        node.install_ports();
        node.upsert(pod("web-0", "u1", "10.16.0.5"));
        let sandbox = Sandbox::new("web-0", "u1");
        node.add(&sandbox).await;
        let mut other = Sandbox::new("web-1", "u2");
        other.container = format!("{}9999", &sandbox.container[..12]);
        node.del(&other).await;
        assert_eq!(node.pod_ports(), [sandbox.host_end()]);
        node.del(&sandbox).await;
        node.assert_clean();
    });
}
