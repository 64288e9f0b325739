//! Node side of CNI requests without a node: what a request needs or waits for, rows of the
//! vswitch database, verdict on the join network, files of the plugin.

use std::sync::Arc;

use kube_ovn::{
    api::{Invalid, Kind, Pod, PodLife, Subnet, crd},
    cni::wire::{Request, Route},
    host::{Datapath, DefaultRoute, GatewayCheck, NatAction},
    net::Dad,
    node::{
        feed::parse_status,
        health::{Probe, Reach, Verdict, condition},
        install::{Installed, install_conflist, install_file, install_plugins},
        metrics::{Metrics, Waited},
        resolve::{ConflictProbe, NodeFacts, Ready, Refusal, Resolution, Work, resolve},
        state::{Change, State, SubnetStatus},
    },
};
use serde_json::json;

use crate::support::objects;

fn facts() -> NodeFacts {
    NodeFacts {
        node: "node1".into(),
        datapath: Datapath::System,
        overlay_mtu: Some(1400),
        conflict_probe: ConflictProbe::On,
    }
}

fn request() -> Request {
    Request {
        cni_type: "kube-ovn".into(),
        pod_name: "web-0".into(),
        pod_namespace: "shop".into(),
        container_id: "0123456789abcdef".into(),
        net_ns: "/var/run/netns/cni-1".into(),
        if_name: "eth0".into(),
        provider: "ovn".into(),
        pod_uid: "shop-web-0".into(),
        ..Request::default()
    }
}

fn pod() -> Pod {
    let mut pod = objects::pod("shop", "web-0", Some("node1"));
    for (key, value) in [
        ("allocated", "true"),
        ("routed", "true"),
        ("ip_address", "10.16.0.5,fd00::5"),
        ("mac_address", "00:00:00:53:6b:b6"),
        ("cidr", "10.16.0.0/16,fd00::/64"),
        ("gateway", "10.16.0.1,fd00::1"),
        ("logical_switch", "ovn-default"),
    ] {
        pod.annotations.insert(format!("ovn.kubernetes.io/{key}").into(), value.into());
    }
    pod
}

fn annotate(pod: &mut Pod, key: &str, value: &str) {
    pod.annotations.insert(format!("ovn.kubernetes.io/{key}").into(), value.into());
}

fn strip(pod: &mut Pod, key: &str) {
    pod.annotations.remove(format!("ovn.kubernetes.io/{key}").as_str());
}

fn subnet() -> Subnet {
    objects::subnet("ovn-default", "10.16.0.0/16,fd00::/64")
}

fn state(pod: Pod, subnets: impl IntoIterator<Item = Subnet>) -> State {
    let mut state = State::default();
    state.store.upsert(Arc::new(pod));
    for subnet in subnets {
        state.store.upsert(Arc::new(subnet));
    }
    state
}

fn ask(pod: Pod) -> Resolution {
    resolve(&request(), &state(pod, [subnet()]), &facts())
}

fn ready(resolution: Resolution) -> Ready {
    match resolution {
        Resolution::Ready(ready) => *ready,
        other => panic!("{other:?}"),
    }
}

fn waits(resolution: &Resolution, text: &str) {
    match resolution {
        Resolution::Wait(what) | Resolution::WaitForPod(what) => {
            assert!(what.contains(text), "{what}");
        }
        other => panic!("{other:?}"),
    }
}

fn refused(resolution: Resolution, text: &str) -> Refusal {
    match resolution {
        Resolution::Refused(refusal) => {
            assert!(refusal.to_string().contains(text), "{refusal}");
            refusal
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_complete_pod_is_ready() {
    let ready = ready(ask(pod()));
    assert_eq!(
        (&*ready.pod, &*ready.uid, &*ready.subnet),
        ("shop/web-0", "shop-web-0", "ovn-default")
    );
    let Work::Interface(attach) = ready.work else { panic!() };
    assert_eq!(attach.addresses.to_string(), "10.16.0.5/16,fd00::5/64");
    assert_eq!(attach.gateways.to_string(), "10.16.0.1,fd00::1");
    assert_eq!((attach.mtu, attach.default_route), (Some(1400), DefaultRoute::Wanted));
    assert_eq!((attach.dad, attach.gateway_check), (Dad::Skip, GatewayCheck::Required));
}

#[test]
fn each_missing_thing_is_waited_for_by_name() {
    let state_of_nothing = State::default();
    waits(&resolve(&request(), &state_of_nothing, &facts()), "pod shop/web-0");
    for key in ["allocated", "routed", "ip_address", "cidr", "mac_address", "logical_switch"] {
        let mut pod = pod();
        strip(&mut pod, key);
        waits(&ask(pod), &format!("ovn.kubernetes.io/{key}"));
    }
    waits(&resolve(&request(), &state(pod(), []), &facts()), "subnet ovn-default");
    let unknown = NodeFacts { overlay_mtu: None, ..facts() };
    waits(&resolve(&request(), &state(pod(), [subnet()]), &unknown), "tunnel interface");
}

#[test]
fn the_predecessor_of_a_pod_is_not_taken_for_it() {
    let mut old = pod();
    old.uid = "older".into();
    waits(&ask(old.clone()), "uid shop-web-0");
    let mut without_uid = request();
    without_uid.pod_uid.clear();
    ready(resolve(&without_uid, &state(old, [subnet()]), &facts()));
}

/// BUG 4: upstream answers success without an address when the pod's annotations stay invalid.
#[test]
fn bug_4_an_invalid_pod_is_refused_with_its_finding() {
    let mut bad = pod();
    bad.invalid.push(Invalid {
        reason: "ValidatePodNetworkFailed",
        message: "annotation ovn.kubernetes.io/ip_address \"x\" is not an IP address".into(),
    });
    refused(ask(bad), "ip_address");
    for (key, value) in [
        ("ip_address", "10.17.0.5"),
        ("ip_address", "nonsense"),
        ("cidr", "10.16.0.0"),
        ("mac_address", "00:00"),
        ("mac_address", "01:00:5e:00:00:01"),
        ("mac_address", "00:00:00:00:00:00"),
        ("gateway", "x"),
        ("routes", "{"),
        ("routes", r#"[{"dst":"10.0.0.0/40"}]"#),
    ] {
        let mut pod = pod();
        annotate(&mut pod, key, value);
        refused(ask(pod), &format!("ovn.kubernetes.io/{key}"));
    }
}

/// A pod deleted before its ADD arrives must not be waited for.
#[test]
fn a_pod_that_was_seen_and_is_gone_is_refused_at_once() {
    let gone = |change: Change| {
        let mut state = state(pod(), [subnet()]);
        assert!(state.take_in(change));
        resolve(&request(), &state, &facts())
    };
    refused(gone(Change::Remove(Kind::Pod, "shop/web-0".into())), "was deleted");
    let mut successor = pod();
    successor.uid = "newer".into();
    refused(gone(Change::Upsert(Arc::new(successor))), "was deleted");
    let mut relabelled = pod();
    relabelled.labels.insert("a".into(), "b".into());
    ready(gone(Change::Upsert(Arc::new(relabelled))));
}

#[test]
fn pods_that_need_no_interface_are_refused() {
    for life in [PodLife::Terminating, PodLife::Ended] {
        refused(ask(Pod { life, ..pod() }), "deleted");
    }
    refused(ask(Pod { host_network: true, ..pod() }), "hostNetwork");
}

/// BUG 5: upstream answers 200 without a body for an underlay whose U2O address is not there yet.
#[test]
fn bug_5_the_u2o_address_is_waited_for() {
    let mut underlay = subnet();
    underlay.vlan = Some("vlan1".into());
    underlay.u2o_interconnection = true;
    let mut state = state(pod(), [underlay]);
    waits(&resolve(&request(), &state, &facts()), "u2oInterconnectionIP");
    let status = SubnetStatus {
        u2o_addresses: objects::addresses("10.16.0.254"),
        ..SubnetStatus::default()
    };
    state.subnet_status.insert("ovn-default".into(), status);
    let Work::Interface(attach) = ready(resolve(&request(), &state, &facts())).work else {
        panic!()
    };
    assert_eq!(attach.u2o_addresses.to_string(), "10.16.0.254");
    assert_eq!(attach.dad, Dad::Detect, "others share the segment");
    let off = NodeFacts { conflict_probe: ConflictProbe::Off, ..facts() };
    let Work::Interface(attach) = ready(resolve(&request(), &state, &off)).work else { panic!() };
    assert_eq!(attach.dad, Dad::Skip);
}

/// BUG 6: the gateway check follows the pod, not the virtual machine that names the port.
#[test]
fn bug_6_a_virtual_machine_names_the_port_but_its_pod_is_watched() {
    let mut vm = pod();
    annotate(&mut vm, "virtualmachine", "vm1");
    let ready = ready(ask(vm));
    assert_eq!(&*ready.pod, "shop/web-0");
    let Work::Interface(attach) = ready.work else { panic!() };
    assert_eq!(&*attach.owner_name, "vm1");
}

#[test]
fn live_migration_and_activation_skip_checks() {
    let mut target = pod();
    target.annotations.insert("kubevirt.io/migrationJobName".into(), "job".into());
    let Work::Interface(attach) = ready(ask(target)).work else { panic!() };
    assert_eq!((attach.dad, attach.gateway_check), (Dad::Skip, GatewayCheck::Skipped));
    let mut waiting = pod();
    annotate(&mut waiting, "activation_strategy", "rarp");
    let Work::Interface(attach) = ready(ask(waiting)).work else { panic!() };
    assert_eq!(attach.gateway_check, GatewayCheck::Skipped);
}

#[test]
fn default_route_by_annotation_then_by_name() {
    let of = |pod: Pod, ifname: &str| {
        let request = Request { if_name: ifname.into(), ..request() };
        let Work::Interface(attach) =
            ready(resolve(&request, &state(pod, [subnet()]), &facts())).work
        else {
            panic!()
        };
        attach.default_route
    };
    assert_eq!(of(pod(), "eth0"), DefaultRoute::Wanted);
    assert_eq!(of(pod(), "net1"), DefaultRoute::None);
    let mut yes = pod();
    annotate(&mut yes, "default_route", "true");
    assert_eq!(of(yes, "net1"), DefaultRoute::Wanted);
    let mut no = pod();
    annotate(&mut no, "default_route", "false");
    strip(&mut no, "routed");
    assert_eq!(of(no, "eth0"), DefaultRoute::None, "routed concerns default routes only");
}

#[test]
fn routes_of_the_configuration_come_first() {
    let mut pod = pod();
    annotate(
        &mut pod,
        "routes",
        r#"[{"dst":"172.16.0.0/12","gw":"10.16.0.9"},{"gw":"10.16.0.3"}]"#,
    );
    let mut request = request();
    request.routes = vec![Route { dst: "192.168.0.0/16".into(), gw: String::new() }];
    let ready = ready(resolve(&request, &state(pod, [subnet()]), &facts()));
    let Work::Interface(attach) = ready.work else { panic!() };
    let routes: Vec<String> = attach
        .routes
        .iter()
        .map(|r| format!("{} {:?}", r.destination, r.gateway.map(|g| g.to_string())))
        .collect();
    assert_eq!(
        routes,
        [
            "192.168.0.0/16 None",
            "172.16.0.0/12 Some(\"10.16.0.9\")",
            "0.0.0.0/0 Some(\"10.16.0.3\")"
        ]
    );
}

#[test]
fn nic_kinds_of_later_issues_are_refused_by_name() {
    let mut device = request();
    device.device_id = "0000:00:01.2".into();
    refused(resolve(&device, &state(pod(), [subnet()]), &facts()), "deviceID");
    let mut dpdk = request();
    dpdk.vhost_user_socket_volume_name = "v".into();
    refused(resolve(&dpdk, &state(pod(), [subnet()]), &facts()), "vhost_user_socket_volume_name");
    let mut internal = pod();
    annotate(&mut internal, "pod_nic_type", "internal-port");
    refused(ask(internal), "pod_nic_type=internal-port");
}

#[test]
fn ipam_mode_needs_a_subnet_of_the_provider() {
    let mut pod = pod();
    for (key, value) in [
        ("allocated", "true"),
        ("ip_address", "10.0.0.5"),
        ("cidr", "10.0.0.0/24"),
        ("gateway", "10.0.0.1"),
    ] {
        pod.annotations.insert(format!("macvlan.default.kubernetes.io/{key}").into(), value.into());
    }
    let request = Request {
        cni_type: "macvlan".into(),
        provider: "macvlan.default".into(),
        if_name: "net1".into(),
        ..request()
    };
    let refusal = refused(
        resolve(&request, &state(pod.clone(), [subnet()]), &facts()),
        "spec.provider \"macvlan.default\"",
    );
    assert!(matches!(refusal, Refusal::Request(_)), "status 400");
    let mut own = objects::subnet("macvlan", "10.0.0.0/24");
    own.provider = "macvlan.default".into();
    let found = ready(resolve(&request, &state(pod.clone(), [own.clone()]), &facts()));
    let Work::Addresses(addresses) = found.work else { panic!() };
    assert_eq!(addresses.addresses.to_string(), "10.0.0.5/24");
    assert!(addresses.gateways.is_empty(), "only for the default route");
    pod.annotations.insert("macvlan.default.kubernetes.io/default_route".into(), "true".into());
    let found = ready(resolve(&request, &state(pod, [own]), &facts()));
    let Work::Addresses(addresses) = found.work else { panic!() };
    assert_eq!(addresses.gateways.to_string(), "10.0.0.1");
}

#[test]
fn five_lost_probes_are_an_outage_and_one_answer_ends_it() {
    let mut verdict = Verdict::default();
    for _ in 0..4 {
        verdict = verdict.after(Probe::Lost);
        assert_eq!(verdict.reach, Reach::Unknown);
    }
    verdict = verdict.after(Probe::Lost);
    assert_eq!(verdict.reach, Reach::Unreachable);
    verdict = verdict.after(Probe::Answered);
    assert_eq!(verdict.reach, Reach::Reachable);
    for _ in 0..4 {
        verdict = verdict.after(Probe::Lost);
    }
    assert_eq!(verdict.reach, Reach::Reachable);
    assert_eq!(verdict.after(Probe::Lost).reach, Reach::Unreachable);
}

#[test]
fn node_condition_has_the_texts_of_the_sheet() {
    assert_eq!(condition(Reach::Unknown, "100.64.0.1", "t"), None);
    let of =
        |reach| condition(reach, "100.64.0.1", "t").unwrap()["status"]["conditions"][0].clone();
    assert_eq!(
        of(Reach::Reachable),
        json!({"type": "NetworkUnavailable", "status": "False",
               "reason": "JoinSubnetGatewayReachable",
               "message": "ping check to gateway ip 100.64.0.1 succeeded",
               "lastHeartbeatTime": "t", "lastTransitionTime": "t"})
    );
    let bad = of(Reach::Unreachable);
    assert_eq!(
        (&bad["status"], &bad["reason"]),
        (&json!("True"), &json!("JoinSubnetGatewayUnreachable"))
    );
    assert_eq!(bad["message"], "ping check to gateway ip 100.64.0.1 failed");
}

/// BUG 13: upstream never registers `cni_wait_route_seconds_total`.
#[test]
fn bug_13_all_metrics_are_registered() {
    let registry = prometheus::Registry::new();
    let metrics = Metrics::register(&registry, "node1").unwrap();
    metrics.observe_wait(Waited::Route, 0.5);
    metrics.observe_request("/api/v1/add", 200, 0.02);
    let mut names: Vec<String> = registry.gather().iter().map(|f| f.name().to_owned()).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "cni_op_latency_seconds",
            "cni_wait_address_seconds_total",
            "cni_wait_connectivity_seconds_total",
            "cni_wait_route_seconds_total"
        ]
    );
}

#[test]
fn subnet_status_of_the_controller_is_read() {
    let raw: crd::SubnetStatus = serde_json::from_value(json!({
        "activateGateway": "node2", "u2oInterconnectionIP": "10.16.0.254,fd00::fe",
        "natOutgoingPolicyRules": [
            {"ruleID": "0123456789ab", "action": "forward", "match": {"srcIPs": "10.16.0.0/24,10.16.1.1"}},
            {"ruleID": "bad", "action": "nat", "match": {"srcIPs": "nonsense"}},
        ]
    }))
    .unwrap();
    let status = parse_status(&raw);
    assert_eq!(status.active_gateways, ["node2".into()]);
    assert_eq!(status.u2o_addresses.to_string(), "10.16.0.254,fd00::fe");
    assert_eq!(status.nat_policy.len(), 1, "a rule that cannot be read is left out");
    assert_eq!(status.nat_policy[0].action, NatAction::Forward);
    assert_eq!(status.nat_policy[0].sources[1].to_string(), "10.16.1.1/32");
    assert_eq!(parse_status(&crd::SubnetStatus::default()), SubnetStatus::default());
}

#[test]
fn a_changed_conflist_is_replaced_and_an_equal_one_only_gets_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    let folder = std::env::temp_dir().join(format!("kot-conflist-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (source, target) = (folder.join("in"), folder.join("net.d/01-kube-ovn.conflist"));
    std::fs::write(&source, "new").unwrap();
    assert_eq!(install_conflist(&source, &target).unwrap(), Installed::Written);
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&target), 0o600);
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(install_conflist(&source, &target).unwrap(), Installed::Unchanged);
    assert_eq!(mode(&target), 0o600);
    std::fs::write(&source, "newer").unwrap();
    assert_eq!(install_conflist(&source, &target).unwrap(), Installed::Written);
    assert_eq!(std::fs::read(&target).unwrap(), b"newer");
    let names = |path: &std::path::Path| {
        let mut names: Vec<String> = std::fs::read_dir(path)
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&folder.join("net.d")), ["01-kube-ovn.conflist"], "no temporary file stays");
    // Plugins: this very executable, and what the image has of the others.
    let (image, bin) = (folder.join("image"), folder.join("bin"));
    std::fs::create_dir_all(&image).unwrap();
    std::fs::write(image.join("loopback"), "x").unwrap();
    assert_eq!(install_plugins(&image, &bin).unwrap(), ["kube-ovn", "loopback"]);
    assert_eq!(mode(&bin.join("kube-ovn")), 0o755);
    assert!(install_plugins(&image, &bin).unwrap().is_empty());
    assert!(install_file(std::path::Path::new("/proc/x/y"), b"", 0o600).is_err());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_shipped_conflist_is_that_of_the_sheet() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/cni/01-kube-ovn.conflist");
    let conflist: serde_json::Value =
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(
        conflist,
        json!({"name": "kube-ovn", "cniVersion": "0.3.1", "plugins": [
            {"type": "kube-ovn", "server_socket": "/run/openvswitch/kube-ovn-daemon.sock"},
            {"type": "portmap", "capabilities": {"portMappings": true}}
        ]})
    );
}

#[test]
fn waiters_wake_on_changes_only() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let cluster = kube_ovn::node::state::Cluster::default();
        cluster.apply([Change::Upsert(Arc::new(pod()))]);
        let mut changes = cluster.changes();
        changes.mark_unchanged();
        cluster.apply([Change::Upsert(Arc::new(pod()))]);
        assert!(!changes.has_changed().unwrap(), "equal is no event");
        cluster.apply([Change::Synced(Kind::Pod)]);
        assert!(changes.has_changed().unwrap());
        let gone = cluster.pod_gone("shop/web-0", "shop-web-0");
        let delete = async {
            tokio::task::yield_now().await;
            cluster.apply([Change::Remove(Kind::Pod, "shop/web-0".into())]);
        };
        tokio::join!(gone, delete);
        cluster.pod_gone("shop/web-0", "shop-web-0").await;
    });
}
