//! Fixed addresses: pools, StatefulSets, virtual machines, reservations, further networks.

use kube_ovn::{
    api::*,
    controller::ledger::{Action, Claimant},
    net::IpRange,
};

use crate::{
    ledger::{World, names},
    support::objects::*,
};

fn owned(pod: Pod, api_version: &str, kind: &str, name: &str) -> Pod {
    let owner = PodOwner {
        api_version: api_version.into(),
        kind: kind.into(),
        name: name.into(),
        uid: name.into(),
    };
    Pod { owner: Some(owner), ..pod }
}

pub fn stateful(name: &str, set: &str) -> Pod {
    owned(pod("default", name, None), "apps/v1", "StatefulSet", set)
}

fn launcher(name: &str, machine: &str) -> Pod {
    owned(pod("default", name, None), "kubevirt.io/v1", "VirtualMachineInstance", machine)
}

pub fn set(name: &str, replicas: u64) -> StatefulSet {
    StatefulSet {
        namespace: "default".into(),
        name: name.into(),
        start: 0,
        replicas,
        subnet: None,
        deleting: false,
    }
}

pub fn annotated(mut pod: Pod, key: &str, value: &str) -> Pod {
    pod.annotations.insert(key.into(), value.into());
    pod
}

pub fn pool(name: &str, subnet: &str, namespaces: &[&str], ranges: &[&str]) -> IpPool {
    IpPool {
        name: name.into(),
        subnet: subnet.into(),
        namespaces: namespaces.iter().map(|n| (*n).into()).collect(),
        ranges: ranges.iter().map(|r| IpRange::parse(r).unwrap()).collect(),
    }
}

fn request(name: &str, pod_name: &str, ips: &str) -> Ip {
    let ip = pod_ip("default", pod_name, "ovn-default", "10.16.0.2");
    let addresses = if ips.is_empty() { Default::default() } else { addresses(ips) };
    Ip { name: name.into(), addresses, mac: None, managed: false, ..ip }
}

fn given(records: &[Ip]) -> Vec<(String, String)> {
    records.iter().map(|ip| (ip.name.to_string(), ip.addresses.to_string())).collect()
}

#[test]
fn stateful_set_pods_take_the_entry_at_their_ordinal() {
    let mut world = World::new();
    world.put(shared(set("web", 3)));
    let list = "10.16.0.6,10.16.0.5,10.16.0.4";
    for n in [2, 0, 1] {
        let pod = stateful(&format!("web-{n}"), "web");
        world.put(shared(annotated(pod, "ovn.kubernetes.io/ip_pool", list)));
    }
    let mut all = given(&world.settle());
    all.sort();
    let expected = [("web-0", 6), ("web-1", 5), ("web-2", 4)];
    assert_eq!(all, expected.map(|(n, i)| (format!("{n}.default"), format!("10.16.0.{i}"))));
}

#[test]
fn a_rolled_stateful_set_takes_the_addresses_of_its_new_template() {
    let mut world = World::new();
    world.put(shared(set("web", 1)));
    let of = |list| annotated(stateful("web-0", "web"), "ovn.kubernetes.io/ip_pool", list);
    world.put(shared(of("10.16.0.6,10.16.0.5")));
    assert_eq!(world.settle().len(), 1);
    world.remove(Kind::Pod, "default/web-0");
    assert_eq!(world.settle(), vec![], "the set keeps it");
    // A pod that is set up keeps what it has, whatever its annotation says later.
    let settled = annotated(of("10.16.0.3"), "ovn.kubernetes.io/allocated", "true");
    world.put(shared(settled));
    assert_eq!(world.settle(), vec![]);
    world.put(shared(of("10.16.0.3")));
    assert_eq!(given(&world.settle()), [("web-0.default".to_owned(), "10.16.0.3".to_owned())]);
    assert_eq!(world.ledger.ipam().allocations().count(), 1, "the old one is free");
}

#[test]
fn a_pod_made_anew_under_its_name_gets_the_address_it_names() {
    let mut world = World::new();
    let fixed = |ip| annotated(pod("default", "a", None), "ovn.kubernetes.io/ip_address", ip);
    world.put(shared(fixed("10.16.0.4")));
    assert_eq!(world.settle().len(), 1);
    // The deletion of the first one and its successor are seen as one change.
    world.put(shared(fixed("10.16.0.5")));
    assert_eq!(given(&world.settle()), [("a.default".to_owned(), "10.16.0.5".to_owned())]);
    let wrong = annotated(fixed("10.16.0.5"), "ovn.kubernetes.io/mac_address", "02:00:00:00:00:09");
    world.put(shared(wrong));
    assert_eq!(world.settle().len(), 1, "another MAC is another record");
}

/// TRAP of upstream: `spec.ordinals.start` was ignored.
#[test]
fn the_first_ordinal_of_a_set_takes_the_first_entry() {
    let mut world = World::new();
    world.put(shared(StatefulSet { start: 5, ..set("web", 2) }));
    let list = "10.16.0.6,10.16.0.5";
    let web = |n: u32| {
        let pod = stateful(&format!("web-{n}"), "web");
        annotated(pod, "ovn.kubernetes.io/ip_pool", list)
    };
    world.put(shared(web(5)));
    assert_eq!(world.record().addresses, addresses("10.16.0.6"));
    world.put(shared(web(7)));
    assert_eq!(world.actions(), vec![]);
    assert!(world.problem("default/web-7").unwrap().contains("NoAvailableAddress"));
}

#[test]
fn a_stateful_set_pod_keeps_its_address_until_the_set_has_no_place_for_it() {
    let mut world = World::new();
    world.put(shared(set("web", 2)));
    world.put(shared(stateful("web-0", "web")));
    world.put(shared(stateful("web-1", "web")));
    let before = given(&world.settle());
    world.remove(Kind::Pod, "default/web-1");
    assert_eq!(world.actions(), vec![], "its place is still there");
    world.put(shared(stateful("web-1", "web")));
    assert_eq!(world.actions(), vec![], "the record is its own");
    assert!(world.ledger.ipam().allocation("web-1.default").is_some());
    // Gone without deletionTimestamp ever seen (upstream freed the address then): the same.
    world.remove(Kind::Pod, "default/web-1");
    world.put(shared(set("web", 1)));
    assert_eq!(names(&world.actions()), vec![("delete", "web-1.default".into())], "scaled down");
    world.remove(Kind::Pod, "default/web-0");
    world.remove(Kind::StatefulSet, "default/web");
    assert_eq!(names(&world.actions()), vec![("delete", "web-0.default".into())]);
    assert_eq!(before.len(), 2);
}

#[test]
fn a_scale_down_seen_after_its_pod_frees_the_address() {
    let mut world = World::new();
    world.put(shared(set("web", 1)));
    world.put(shared(stateful("web-0", "web")));
    world.settle();
    world.remove(Kind::Pod, "default/web-0");
    assert_eq!(world.actions(), vec![]);
    world.put(shared(set("web", 0)));
    world.settle();
    assert_eq!(world.ledger.ipam().allocations().count(), 0);
}

#[test]
fn a_stateful_set_moved_to_another_subnet_gives_its_addresses_back() {
    let mut world = World::new();
    world.put(shared(subnet("blue", "10.17.0.0/24")));
    world.put(shared(set("web", 1)));
    world.put(shared(stateful("web-0", "web")));
    world.settle();
    world.put(shared(StatefulSet { subnet: Some("blue".into()), ..set("web", 1) }));
    assert_eq!(world.actions(), vec![], "the running pod keeps its address");
    world.remove(Kind::Pod, "default/web-0");
    let moved = annotated(stateful("web-0", "web"), "ovn.kubernetes.io/logical_switch", "blue");
    world.settle();
    world.put(shared(moved));
    assert_eq!(given(&world.settle()), [("web-0.default".into(), "10.17.0.2".into())]);
}

#[test]
fn a_set_in_the_subnet_of_its_template_keeps_it_although_the_namespace_has_another() {
    let mut world = World::new();
    world.put(shared(subnet("blue", "10.17.0.0/24")));
    world.put(shared(StatefulSet { subnet: Some("blue".into()), ..set("web", 1) }));
    world.put(shared(annotated(
        stateful("web-0", "web"),
        "ovn.kubernetes.io/logical_switch",
        "blue",
    )));
    world.settle();
    world.remove(Kind::Pod, "default/web-0");
    assert_eq!(world.actions(), vec![]);
}

#[test]
fn an_address_outside_of_a_changed_subnet_is_not_kept() {
    let mut world = World::new();
    world.put(shared(set("web", 1)));
    world.put(shared(Ip {
        pod_type: "StatefulSet".into(),
        ..pod_ip("default", "web-0", "ovn-default", "10.99.0.4")
    }));
    assert_eq!(names(&world.actions()), vec![("delete", "web-0.default".into())]);
}

#[test]
fn an_orphaned_pod_of_a_deleted_set_keeps_its_address_while_it_runs() {
    let mut world = World::new();
    world.put(shared(set("web", 1)));
    world.put(shared(stateful("web-0", "web")));
    world.settle();
    world.remove(Kind::StatefulSet, "default/web");
    assert_eq!(world.actions(), vec![]);
}

#[test]
fn the_pods_of_a_machine_share_one_record_until_the_machine_is_gone() {
    let mut world = World::new();
    let machine =
        |deleting| VirtualMachine { namespace: "default".into(), name: "vm1".into(), deleting };
    world.ledger.listed(Kind::VirtualMachine);
    world.ledger.listed(Kind::VirtualMachineInstance);
    world.put(shared(machine(false)));
    world.put(shared(launcher("virt-launcher-vm1-a", "vm1")));
    let first = world.settle();
    assert_eq!(given(&first), [("vm1.default".into(), "10.16.0.2".into())]);
    assert_eq!((&*first[0].pod_type, &*first[0].pod_name), ("VirtualMachine", "vm1"));
    // Live migration: both at once.
    world.put(shared(launcher("virt-launcher-vm1-b", "vm1")));
    assert_eq!(world.actions(), vec![]);
    world.remove(Kind::Pod, "default/virt-launcher-vm1-a");
    assert_eq!(world.actions(), vec![]);
    world.remove(Kind::Pod, "default/virt-launcher-vm1-b");
    assert_eq!(world.actions(), vec![], "a stopped machine keeps its address");
    world.put(shared(machine(true)));
    world.settle();
    assert_eq!(world.ledger.ipam().allocations().count(), 0);
}

#[test]
fn while_the_machines_are_not_known_their_addresses_stay() {
    let mut world = World::new();
    world.put(shared(launcher("virt-launcher-vm1-a", "vm1")));
    world.settle();
    world.remove(Kind::Pod, "default/virt-launcher-vm1-a");
    assert_eq!(world.actions(), vec![]);
}

/// BUG 13 of upstream's garbage collection: with keep-vm-ip=false the record of a running machine
/// was deleted, because its pod has another name.
#[test]
fn switching_machine_addresses_off_harms_no_running_machine() {
    let mut world = World::new();
    world.put(shared(Settings { keep_vm_ip: false, ..settings() }));
    world.put(shared(Ip {
        pod_type: "VirtualMachine".into(),
        ..pod_ip("default", "vm1", "ovn-default", "10.16.0.4")
    }));
    let pod = launcher("virt-launcher-vm1-a", "vm1");
    world.put(shared(annotated(pod, "ovn.kubernetes.io/virtualmachine", "vm1")));
    assert_eq!(world.actions(), vec![]);
    world.put(shared(launcher("virt-launcher-vm2-a", "vm2")));
    assert_eq!(&*world.record().name, "virt-launcher-vm2-a.default");
}

/// A.2 item 6 of the sheet: a machine and a pod of one name shared port, record and address.
#[test]
fn a_machine_and_a_pod_of_one_name_do_not_share_a_record() {
    let mut world = World::new();
    world.put(shared(launcher("virt-launcher-a", "a")));
    world.settle();
    world.put(shared(pod("default", "a", None)));
    assert_eq!(world.actions(), vec![]);
    let message = world.problem("default/a").unwrap();
    assert!(message.contains("AddressConflict") && message.contains("VirtualMachine/default/a"));
}

#[test]
fn a_reservation_without_address_is_given_one() {
    let mut world = World::new();
    world.put(shared(request("vm-dynamic-01.default", "vm-dynamic-01", "")));
    let actions = world.actions();
    let [Action::Adopt(ip)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(ip.addresses, addresses("10.16.0.2"));
    assert!(ip.managed && ip.mac.is_some());
    assert_eq!(world.actions(), vec![], "while it is written");
    world.put(shared(Ip { reserved: true, ..ip.clone() }));
    assert_eq!(world.actions(), vec![]);
    world.put(shared(pod("default", "vm-dynamic-01", None)));
    assert_eq!(world.actions(), vec![], "its pod takes it");
    world.put(shared(pod("default", "b", None)));
    assert_eq!(world.record().addresses, addresses("10.16.0.3"));
}

/// TRAP of upstream: the static path of a reservation skipped conflict checks, so that a running
/// pod lost its address.
#[test]
fn a_reservation_of_a_taken_address_is_refused_and_heals() {
    let mut world = World::new();
    world.put(shared(pod("default", "a", None)));
    world.settle();
    world.put(shared(request("b.default", "b", "10.16.0.2")));
    assert_eq!(world.actions(), vec![]);
    let claimant = Claimant::Reservation("b.default".into());
    let message = world.ledger.problem(&claimant).unwrap().message.clone();
    assert!(message.contains("AddressConflict") && message.contains("default/a"), "{message}");
    // Its pod waits for it and says so.
    world.put(shared(pod("default", "b", None)));
    assert_eq!(world.actions(), vec![]);
    assert!(world.problem("default/b").unwrap().contains("b.default"));
    world.remove(Kind::Pod, "default/a");
    assert_eq!(given(&world.settle()), [("b.default".into(), "10.16.0.2".into())]);
    assert_eq!(world.problem("default/b"), None);
    assert_eq!(world.ledger.problem(&claimant), None);
}

#[test]
fn a_reservation_under_a_name_that_no_pod_will_have_is_refused() {
    let mut world = World::new();
    world.put(shared(request("b", "b", "")));
    assert_eq!(world.actions(), vec![]);
    let problem = world.ledger.problem(&Claimant::Reservation("b".into())).unwrap();
    assert!(problem.message.contains("b.default"), "{}", problem.message);
    world.remove(Kind::Ip, "b");
    assert_eq!(world.ledger.problem(&Claimant::Reservation("b".into())), None);
}

/// TRAPs of upstream: after a restart reservations without type could be given to others, and its
/// garbage collection deleted them.
#[test]
fn a_reservation_survives_restart_and_absence_of_its_pod() {
    let mut world = World::new();
    world.put(shared(Ip { reserved: true, ..pod_ip("default", "x", "ovn-default", "10.16.0.2") }));
    world.put(shared(pod("default", "a", None)));
    assert_eq!(world.record().addresses, addresses("10.16.0.3"));
}

#[test]
fn several_pools_of_a_namespace_are_used_in_order() {
    let mut world = World::new();
    world.put(shared(pool("a", "ovn-default", &["default"], &["10.16.0.5"])));
    world.put(shared(pool("b", "ovn-default", &["default"], &["10.16.0.6"])));
    for name in ["p0", "p1", "p2"] {
        world.put(shared(pod("default", name, None)));
    }
    let all = given(&world.settle());
    let expected =
        [("p0", 5), ("p1", 6)].map(|(n, i)| (format!("{n}.default"), format!("10.16.0.{i}")));
    assert_eq!(all, expected);
    assert!(world.problem("default/p2").unwrap().contains("NoAvailableAddress"));
}

#[test]
fn a_pool_of_another_subnet_is_not_used_for_the_namespace() {
    let mut world = World::new();
    world.put(shared(subnet("blue", "10.17.0.0/24")));
    world.put(shared(pool("a", "blue", &["default"], &["10.17.0.5"])));
    world.put(shared(pod("default", "p", None)));
    assert_eq!(world.actions(), vec![]);
    assert!(world.problem("default/p").unwrap().contains("NoAvailableAddress"));
    world.put(shared(pool("b", "ovn-default", &["default"], &["10.16.0.5"])));
    assert_eq!(world.record().addresses, addresses("10.16.0.5"));
}

#[test]
fn a_pool_that_conflicts_is_taken_when_the_other_is_gone() {
    let mut world = World::new();
    world.put(shared(pool("a", "ovn-default", &[], &["10.16.0.5"])));
    world.put(shared(pool("b", "ovn-default", &[], &["10.16.0.5..10.16.0.6"])));
    let problem = world.ledger.pool_problem("b").unwrap().message.clone();
    assert!(problem.contains("conflict IPs") && problem.contains("IPPool a"), "{problem}");
    world.remove(Kind::IpPool, "a");
    assert_eq!(world.ledger.pool_problem("b"), None);
    assert_eq!(world.ledger.ipam().pool_usage("b").v4.unwrap().available, 2);
}

#[test]
fn a_pool_seen_before_its_subnet_is_taken_with_it() {
    let mut world = World::new();
    world.put(shared(pool("a", "blue", &[], &["10.17.0.5"])));
    assert!(world.ledger.pool_problem("a").unwrap().message.contains("NoSubnet"));
    world.put(shared(subnet("blue", "10.17.0.0/24")));
    assert_eq!(world.ledger.pool_problem("a"), None);
}

#[test]
fn a_dual_stack_pod_may_fix_one_family() {
    let mut world = World::new();
    world.put(shared(subnet("ovn-default", "10.16.0.0/16,fd00:10:16::/64")));
    let fixed = annotated(pod("default", "a", None), "ovn.kubernetes.io/ip_address", "10.16.0.9");
    world.put(shared(fixed));
    assert_eq!(world.record().addresses, addresses("10.16.0.9,fd00:10:16::2"));
    let fixed =
        annotated(pod("default", "b", None), "ovn.kubernetes.io/ip_address", "fd00:10:16::9");
    world.put(shared(fixed));
    assert_eq!(world.record().addresses, addresses("10.16.0.2,fd00:10:16::9"));
}

#[test]
fn a_fixed_address_may_lie_in_any_subnet_of_the_namespace() {
    let mut world = World::new();
    let bound = |name, cidr| Subnet { namespaces: vec!["default".into()], ..subnet(name, cidr) };
    world.put(shared(bound("blue", "10.17.0.0/24")));
    world.put(shared(bound("green", "10.18.0.0/24")));
    let fixed =
        |name, ip| annotated(pod("default", name, None), "ovn.kubernetes.io/ip_address", ip);
    world.put(shared(fixed("a", "10.18.0.9")));
    assert_eq!(&*world.record().subnet, "green");
    world.put(shared(fixed("b", "10.18.0.9")));
    assert_eq!(world.actions(), vec![]);
    let message = world.problem("default/b").unwrap();
    assert!(message.contains("AddressConflict") && message.contains("a.default"), "{message}");
}

#[test]
fn an_exhausted_subnet_leads_to_the_next_of_the_namespace() {
    let mut world = World::new();
    let bound = |name, cidr| Subnet { namespaces: vec!["default".into()], ..subnet(name, cidr) };
    world.put(shared(bound("blue", "10.17.0.0/30")));
    world.put(shared(bound("green", "10.18.0.0/24")));
    world.put(shared(pod("default", "a", None)));
    world.put(shared(pod("default", "b", None)));
    let subnets: Vec<Text> = world.settle().into_iter().map(|ip| ip.subnet).collect();
    assert_eq!(subnets, ["blue".into(), "green".into()]);
}

fn attachment(name: &str, plugin: Plugin) -> Attachment {
    Attachment { namespace: "default".into(), name: name.into(), plugin, provider: "".into() }
}

fn further(networks: &str) -> Pod {
    annotated(pod("default", "a", None), "k8s.v1.cni.cncf.io/networks", networks)
}

#[test]
fn every_network_of_a_pod_is_given_addresses() {
    let mut world = World::new();
    world.put(shared(Subnet {
        provider: "net1.default.ovn".into(),
        ..subnet("att", "10.30.0.0/24")
    }));
    world.put(shared(Subnet {
        provider: "macvlan.default".into(),
        vpc: "".into(),
        ..subnet("outside", "10.31.0.0/24")
    }));
    world.put(shared(attachment("net1", Plugin::KubeOvn)));
    world.put(shared(attachment("macvlan", Plugin::Other)));
    world.put(shared(attachment("foreign", Plugin::Other)));
    world.put(shared(further("net1, default/macvlan@eth7, foreign")));
    let mut all = world.settle();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let expected = [
        ("a.default", "10.16.0.2"),
        ("a.default.macvlan.default", "10.31.0.2"),
        ("a.default.net1.default.ovn", "10.30.0.2"),
    ];
    assert_eq!(given(&all), expected.map(|(n, i)| (n.to_owned(), i.to_owned())));
    assert_eq!(all[1].mac, None, "the other plugin makes the interface");
    // Unplugged while it runs.
    world.put(shared(further("net1")));
    assert_eq!(names(&world.actions()), vec![("delete", "a.default.macvlan.default".into())]);
}

#[test]
fn an_attachment_without_a_subnet_of_its_own_uses_the_pods() {
    let mut world = World::new();
    world.put(shared(attachment("net1", Plugin::KubeOvn)));
    world.put(shared(further(
        r#"[{"name": "net1", "ips": ["10.16.0.6/16"], "mac": "00:00:00:00:aa:01"}]"#,
    )));
    let all = world.settle();
    let net1 = all.iter().find(|ip| &*ip.name == "a.default.net1.default.ovn").unwrap();
    assert_eq!(net1.addresses, addresses("10.16.0.6"));
    assert_eq!(net1.mac.unwrap().to_string(), "00:00:00:00:aa:01");
}

#[test]
fn a_missing_attachment_is_named_and_the_rest_is_served() {
    let mut world = World::new();
    world.put(shared(further("net1")));
    assert_eq!(given(&world.settle()), [("a.default".into(), "10.16.0.2".into())]);
    assert!(world.problem("default/a").unwrap().contains("\"default/net1\""));
    world.put(shared(attachment("net1", Plugin::KubeOvn)));
    assert_eq!(&*world.record().name, "a.default.net1.default.ovn");
    assert_eq!(world.problem("default/a"), None);
}

/// TRAP: the CNI plugin goes by the provider in the configuration and would wait for ever.
#[test]
fn a_configuration_with_another_provider_is_told() {
    let mut world = World::new();
    world.put(shared(Attachment {
        provider: "net2.default.ovn".into(),
        ..attachment("net1", Plugin::KubeOvn)
    }));
    world.put(shared(further("net1")));
    world.settle();
    let message = world.problem("default/a").unwrap();
    assert!(message.contains("\"net1.default.ovn\""), "{message}");
}

#[test]
fn a_default_network_of_its_own_replaces_ours() {
    let mut world = World::new();
    world.put(shared(attachment("net1", Plugin::KubeOvn)));
    let pod = pod("default", "a", None);
    world.put(shared(annotated(pod, "v1.multus-cni.io/default-network", "default/net1")));
    assert_eq!(given(&world.settle()), [("a.default.net1.default.ovn".into(), "10.16.0.2".into())]);
}

/// A.2 item 2 of the sheet: the provider was cut out of the port name at dots.
#[test]
fn a_pod_name_with_dots_loses_no_network() {
    let mut world = World::new();
    world.put(shared(attachment("net1", Plugin::KubeOvn)));
    let pod = pod("default", "a.b.c", None);
    world.put(shared(annotated(pod.clone(), "k8s.v1.cni.cncf.io/networks", "net1")));
    assert_eq!(world.settle().len(), 2);
    world.put(shared(pod));
    assert_eq!(names(&world.actions()), vec![("delete", "a.b.c.default.net1.default.ovn".into())]);
}

#[test]
fn a_querier_gets_an_address_while_snooping_is_on() {
    let mut world = World::new();
    let snooping = |on| Subnet { multicast_snoop: on, ..subnet("blue", "10.17.0.0/24") };
    world.put(shared(snooping(true)));
    let ip = world.settle().remove(0);
    assert_eq!((&*ip.name, &*ip.namespace), ("mcast-querier.blue", "default"));
    assert_eq!(world.actions(), vec![]);
    world.put(shared(snooping(false)));
    assert_eq!(names(&world.actions()), vec![("delete", "mcast-querier.blue".into())]);
}

/// BUG of upstream: the querier's address was not restored at start.
#[test]
fn a_querier_keeps_its_address_over_a_restart() {
    let mut world = World::new();
    let name: Text = "mcast-querier.blue".into();
    world.put(shared(Ip { name: name.clone(), ..pod_ip("default", &name, "blue", "10.17.0.2") }));
    world.put(shared(Subnet { multicast_snoop: true, ..subnet("blue", "10.17.0.0/24") }));
    assert_eq!(world.actions(), vec![]);
    world.put(shared(annotated(
        pod("default", "a", None),
        "ovn.kubernetes.io/logical_switch",
        "blue",
    )));
    assert_eq!(world.record().addresses, addresses("10.17.0.3"));
}

#[test]
fn a_subnet_that_would_leave_addresses_outside_is_refused_with_their_holders() {
    let mut world = World::new();
    world.put(shared(pod("default", "a", None)));
    world.settle();
    let smaller = subnet("ovn-default", "10.16.0.4/30");
    let problem = world.ledger.subnet_refusal(&world.store, &smaller).unwrap().problem;
    assert!(problem.message.contains("10.16.0.2 (a.default)"), "{}", problem.message);
    let wider = subnet("ovn-default", "10.16.0.0/16");
    assert_eq!(world.ledger.subnet_refusal(&world.store, &wider), None);
    world.remove(Kind::Pod, "default/a");
    world.settle();
    assert_eq!(world.ledger.subnet_refusal(&world.store, &smaller), None);
}

#[test]
fn a_node_whose_record_failed_leaks_nothing_when_it_is_gone() {
    let mut world = World::new();
    world.put(shared(node("node1", "172.18.0.2")));
    let ip = world.record();
    world.ledger.write_failed(&ip.name.clone(), &Action::Record(ip));
    world.remove(Kind::Node, "node1");
    assert_eq!(names(&world.actions()), vec![("delete", "node-node1".into())]);
}

#[test]
fn a_node_that_rejoins_while_its_old_record_leaves_gets_a_new_one() {
    let mut world = World::new();
    world.put(shared(node("node1", "172.18.0.2")));
    let ip = world.settle().remove(0);
    world.remove(Kind::Node, "node1");
    world.put(shared(node("node1", "172.18.0.2")));
    // The API server removes it with its owner, the node of before.
    world.put(shared(Ip { deleting: true, ..ip }));
    assert_eq!(names(&world.actions()), vec![("finalize", "node-node1".into())]);
    world.remove(Kind::Ip, "node-node1");
    assert_eq!(&*world.record().name, "node-node1");
}

#[test]
fn virtual_addresses_go_to_no_pod_that_does_not_ask_for_them() {
    let mut world = World::new();
    let vips = ["10.16.0.2", "10.16.0.4"].map(Text::from).to_vec();
    world.put(shared(Subnet { vips, ..subnet("ovn-default", "10.16.0.0/29") }));
    for name in ["a", "b", "c"] {
        world.put(shared(pod("default", name, None)));
    }
    let given: Vec<String> = world.settle().iter().map(|ip| ip.addresses.to_string()).collect();
    assert_eq!(given, ["10.16.0.3", "10.16.0.5", "10.16.0.6"]);
    let asks = annotated(pod("default", "d", None), "ovn.kubernetes.io/ip_address", "10.16.0.4");
    world.put(shared(asks));
    assert_eq!(world.record().addresses, addresses("10.16.0.4"));
}
