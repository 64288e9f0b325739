//! The runtime's side: the plugin called in every wrong order, and a node that loses power.

use std::time::Duration;

use crate::{
    audit::agreement,
    cluster::{Answer, map_value, ovs_rows, retry, text},
    pods::Pod,
    story::{Story, story},
};

const CONF: &str = r#"{"cniVersion": "1.0.0", "name": "kube-ovn", "type": "kube-ovn",
    "server_socket": "/run/openvswitch/kube-ovn-daemon.sock"}"#;

struct Sandbox {
    id: String,
    netns: String,
}

/// Calls the plugin in a node as containerd does.
fn plugin(s: &Story, node: &str, command: &str, sandbox: &Sandbox, pod: &str) -> Answer {
    let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={pod}", s.ns);
    let variables = [
        format!("CNI_COMMAND={command}"),
        format!("CNI_CONTAINERID={}", sandbox.id),
        format!("CNI_NETNS={}", sandbox.netns),
        "CNI_IFNAME=eth0".to_owned(),
        "CNI_PATH=/opt/cni/bin".to_owned(),
        format!("CNI_ARGS={args}"),
    ];
    // An ADD waits for its pod; a runtime that gives up kills the plugin.
    let mut call = vec!["timeout", "-s", "KILL", "10", "env"];
    call.extend(variables.iter().map(String::as_str));
    call.push("/opt/cni/bin/kube-ovn");
    s.cluster.enter_with(node, &call, CONF)
}

/// The running sandbox of a pod.
fn sandbox_of(s: &Story, node: &str, pod: &str) -> Sandbox {
    let filter = format!("external_ids:iface-id={pod}.{}", s.ns);
    let columns = "--columns=name,external_ids";
    let table =
        s.cluster.vsctl(node, &["--format=json", columns, "find", "Interface", &filter]).unwrap();
    let row = ovs_rows(&table).into_iter().next().expect("the pod's OVS port");
    let short = text(&row["name"]).trim_end_matches("_h").to_owned();
    let all = s.cluster.enter(node, &["ctr", "containers", "ls", "-q"]).unwrap();
    let id = all.lines().find(|id| id.starts_with(&short)).expect("the pod's sandbox").to_owned();
    let netns = map_value(&row["external_ids"], "pod_netns").expect("the port's pod_netns");
    Sandbox { id, netns }
}

#[test]
fn repeated_add_gives_the_same_answer() {
    story("add-twice", |s| {
        let node = &s.cluster.nodes()[1].name;
        s.start(&[Pod::new("a").on(node), Pod::new("b")]);
        let sandbox = sandbox_of(s, node, "a");
        let first = plugin(s, node, "ADD", &sandbox, "a").expect("a second ADD");
        let again = plugin(s, node, "ADD", &sandbox, "a").expect("a third ADD");
        assert_eq!(first, again);
        assert!(first.contains(&s.ip("a")), "{first}");
        s.step("two more ADDs, one answer");
        let target = s.ip("a");
        s.pings("b", &target);
        retry(30, || agreement(s.cluster));
        s.step("all agrees");
    });
}

#[test]
fn wrong_requests_end_in_one_clear_error() {
    story("wrong-requests", |s| {
        let node = &s.cluster.nodes()[1].name;
        let nobody = Sandbox { id: "0123456789abcdef".repeat(4), netns: "/run/netns/none".into() };
        let silent = plugin(s, node, "DEL", &nobody, "nobody").expect("DEL without ADD");
        assert_eq!(silent.trim(), "", "DEL without ADD is silent");
        s.step("DEL without ADD: right and silent");
        plugin(s, node, "ADD", &nobody, "nobody").expect_err("ADD without a pod");
        let log = s
            .cluster
            .exec_system(
                "app=kube-ovn-cni",
                Some(node),
                &["tail", "-n", "20", "/var/log/kube-ovn/kube-ovn-cni.log"],
            )
            .unwrap();
        let cancelled = log.lines().any(|l| l.contains("cancelled") && l.contains("nobody"));
        assert!(cancelled, "the agent notices that the plugin is gone:\n{log}");
        s.step("ADD without a pod, plugin killed: cancelled");
        for (conf, word) in
            [("{\"cniVersion\": ", "decode"), ("[]", "object"), ("{}", "cniVersion")]
        {
            let call = [
                "env",
                "CNI_COMMAND=ADD",
                "CNI_CONTAINERID=0123456789abcdef",
                "CNI_NETNS=/none",
                "CNI_IFNAME=eth0",
                "CNI_PATH=/opt/cni/bin",
                "CNI_ARGS=K8S_POD_NAMESPACE=x;K8S_POD_NAME=y",
                "/opt/cni/bin/kube-ovn",
            ];
            let error = s.cluster.enter_with(node, &call, conf).expect_err("malformed JSON");
            assert!(error.contains("\"code\"") && !error.contains("panicked"), "{conf}: {error}");
            let told = error.contains(word) || error.contains("server_socket");
            assert!(told, "{conf}: the error does not say {word}: {error}");
        }
        s.step("malformed JSON: errors of the CNI specification");
        s.start(&[Pod::new("fine").on(node)]);
    });
}

#[test]
fn pods_deleted_while_they_start_leave_nothing() {
    story("hasty", |s| {
        let nodes = s.cluster.nodes();
        for round in 0..8u64 {
            let names: Vec<String> = (0..3).map(|n| format!("hasty-{round}-{n}")).collect();
            let on = |(n, name): (usize, &String)| Pod::new(name).on(&nodes[n].name);
            s.create(&names.iter().enumerate().map(on).collect::<Vec<_>>());
            std::thread::sleep(Duration::from_millis(round * 150));
            s.delete_pods(&names.iter().map(String::as_str).collect::<Vec<_>>());
        }
        s.step("24 pods deleted within a second of their creation");
        retry(60, || agreement(s.cluster));
        s.step("all agrees");
    });
}

#[test]
fn node_that_lost_power_comes_back() {
    story("reboot", |s| {
        let nodes = s.cluster.nodes();
        let node = &nodes[nodes.len() - 1].name;
        s.start(&[Pod::new("there").on(node), Pod::new("here").on(&nodes[0].name)]);
        let before = sandbox_of(s, node, "there");
        let target = s.ip("there");
        s.pings("here", &target);
        let power = s.cluster.program("packaging/sandbox/node").args(["restart", node]).status();
        assert!(power.unwrap().success(), "{node} restarts");
        s.step(&format!("{node} was switched off and on"));
        retry(120, || {
            let reachable =
                s.exec("here", &["wget", "-qO-", "-T", "1", &format!("http://{}/", s.ip("there"))]);
            reachable.and_then(|page| if page.contains("there") { Ok(()) } else { Err(page) })
        });
        s.step("its pod answers again");
        let silent = plugin(s, node, "DEL", &before, "there").expect("DEL after the reboot");
        assert_eq!(silent.trim(), "");
        let outside = s.cluster.outside();
        s.pings("there", outside);
        retry(90, || agreement(s.cluster));
        s.step("all agrees");
    });
}
