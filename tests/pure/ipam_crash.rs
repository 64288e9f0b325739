//! "Recorded before use": a controller that dies between any two writes, whose successor knows
//! only the Kubernetes objects, hands out no address twice and loses none.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use kube_ovn::ipam::{Ipam, Record, Request, SubnetSpec};
use proptest::prelude::*;

/// What survives a crash.
#[derive(Default)]
struct Cluster {
    pods: BTreeSet<u8>,
    /// IP CRs.
    records: BTreeMap<u8, Record>,
    /// Addresses in use: annotations and OVN ports, written after the record.
    in_use: BTreeMap<u8, IpAddr>,
}

/// Counts the writes down; at zero the process dies.
struct Fuse(u32);

impl Fuse {
    fn write(&mut self) -> Result<(), Crashed> {
        self.0 = self.0.checked_sub(1).ok_or(Crashed)?;
        Ok(())
    }
}

struct Crashed;

fn port(pod: u8) -> String {
    format!("{pod}.ns")
}

fn spec() -> SubnetSpec {
    SubnetSpec::parse("s", "10.0.0.0/28", "10.0.0.1", &[]).unwrap()
}

/// The controller's protocol for a pod.
fn serve(cluster: &mut Cluster, ipam: &mut Ipam, pod: u8, fuse: &mut Fuse) -> Result<(), Crashed> {
    let owner = format!("ns/{pod}");
    let request = Request::any(&owner, &port(pod), "s", u64::from(pod));
    let Ok(given) = ipam.allocate(&request) else {
        return Ok(());
    };
    let record = Record {
        owner: owner.into(),
        port: port(pod).into(),
        subnet: "s".into(),
        addresses: given.addresses,
        mac: given.mac,
    };
    fuse.write()?;
    cluster.records.insert(pod, record);
    fuse.write()?;
    cluster.in_use.insert(pod, given.addresses.v4.unwrap());
    Ok(())
}

/// The protocol for a pod that is gone: out of use, record deleted, then free.
fn retire(cluster: &mut Cluster, ipam: &mut Ipam, pod: u8, fuse: &mut Fuse) -> Result<(), Crashed> {
    if cluster.in_use.contains_key(&pod) {
        fuse.write()?;
        cluster.in_use.remove(&pod);
    }
    if cluster.records.contains_key(&pod) {
        fuse.write()?;
        cluster.records.remove(&pod);
    }
    ipam.release(&port(pod));
    Ok(())
}

/// A new process: subnets, then all IP CRs, then one look at every pod.
fn start(cluster: &mut Cluster, fuse: &mut Fuse) -> Result<Ipam, Crashed> {
    let mut ipam = Ipam::new();
    ipam.upsert_subnet(spec()).unwrap();
    for record in cluster.records.values() {
        assert_eq!(ipam.restore(record), [], "records never contradict each other");
    }
    let known: BTreeSet<u8> =
        cluster.records.keys().chain(cluster.in_use.keys()).copied().collect();
    for pod in known.difference(&cluster.pods.clone()) {
        retire(cluster, &mut ipam, *pod, fuse)?;
    }
    for pod in cluster.pods.clone() {
        serve(cluster, &mut ipam, pod, fuse)?;
    }
    Ok(ipam)
}

fn assert_no_double(cluster: &Cluster) {
    let addresses: BTreeSet<_> = cluster.in_use.values().collect();
    assert_eq!(addresses.len(), cluster.in_use.len(), "doubled: {:?}", cluster.in_use);
    let recorded: BTreeSet<_> = cluster.records.values().map(|r| r.addresses).collect();
    assert_eq!(recorded.len(), cluster.records.len());
    for (pod, ip) in &cluster.in_use {
        assert_eq!(cluster.records[pod].addresses.v4, Some(*ip), "used, but not recorded");
    }
}

fn assert_no_leak(cluster: &Cluster, ipam: &Ipam) {
    let using = ipam.usage("s").v4.unwrap().using;
    assert_eq!(using, cluster.records.len() as u128);
    assert_eq!(cluster.records.len(), cluster.pods.len().min(13), "13 addresses in the subnet");
    assert!(cluster.records.keys().eq(cluster.in_use.keys()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..Default::default() })]

    /// Pods 0..16 come and go (16 > 13 addresses), each life of the controller lasts so many writes.
    #[test]
    fn any_crash_point_leaves_no_double_and_no_leak(
        events in prop::collection::vec(0..16u8, 1..80),
        lives in prop::collection::vec(0..12u32, 0..12),
    ) {
        let mut cluster = Cluster::default();
        let mut lives = lives.into_iter().chain(std::iter::repeat(u32::MAX));
        let mut fuse = Fuse(lives.next().unwrap());
        let mut running = start(&mut cluster, &mut fuse).ok();
        for pod in events {
            let gone = cluster.pods.remove(&pod);
            if !gone {
                cluster.pods.insert(pod);
            }
            let alive = running.as_mut().is_some_and(|ipam| match gone {
                true => retire(&mut cluster, ipam, pod, &mut fuse).is_ok(),
                false => serve(&mut cluster, ipam, pod, &mut fuse).is_ok(),
            });
            assert_no_double(&cluster);
            if !alive {
                fuse = Fuse(lives.next().unwrap());
                running = start(&mut cluster, &mut fuse).ok();
                assert_no_double(&cluster);
            }
        }
        let ipam = start(&mut cluster, &mut Fuse(u32::MAX)).ok().unwrap();
        assert_no_double(&cluster);
        assert_no_leak(&cluster, &ipam);
    }
}
