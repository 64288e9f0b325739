//! How many requests to the API server a pod costs: its IP and its annotations, one each.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use kube_ovn::{
    api::{Ip, Kind, Text, names::finalizer},
    controller::{
        ledger::{Action, Ledger, Northbound},
        publish::{Judgement, Patch, Wish, decide},
        records::{ip_resource, release},
    },
    store::{Owner, Stored, watch::Seen},
};
use serde_json::json;

use crate::support::{cluster::Cluster, objects::*};

#[test]
fn a_released_record_loses_the_finalizers_of_every_release_of_ours_and_no_other() {
    let seen = |finalizers: &[&str]| Seen {
        resource_version: "7".into(),
        finalizers: finalizers.iter().map(|f| Text::from(*f)).collect(),
        deleting: true,
        ..Seen::default()
    };
    let patch =
        |left: &[&str]| Some(json!({"metadata": {"finalizers": left, "resourceVersion": "7"}}));
    let (today, earlier) = (finalizer::CONTROLLER, finalizer::CONTROLLER_OLD);
    assert_eq!(release(&seen(&[today])), patch(&[]));
    assert_eq!(release(&seen(&[earlier])), patch(&[]), "upstream's record is not kept for ever");
    assert_eq!(release(&seen(&["backup.io/keep", today])), patch(&["backup.io/keep"]));
    assert_eq!(release(&seen(&["backup.io/keep"])), None, "nothing is left to do");
}

/// The ledger and the features on one store.
struct Controller {
    cluster: Cluster,
    ledger: Ledger,
}

impl Controller {
    fn new() -> Self {
        let mut controller = Controller { cluster: Cluster::default(), ledger: Ledger::default() };
        controller.put(shared(settings()));
        controller.put(shared(vpc("ovn-cluster")));
        controller.put(shared(subnet("join", "100.64.0.0/16")));
        controller.put(shared(subnet("ovn-default", "10.16.0.0/24")));
        controller.put(shared(namespace("default")));
        controller
    }

    fn put(&mut self, object: Arc<dyn Stored>) {
        let (kind, key) = (object.kind(), object.key());
        self.cluster.put(object);
        self.ledger.upserted(&self.cluster.store, kind, &key);
    }

    /// IPs to create; each exists at once.
    fn creations(&mut self) -> Vec<Ip> {
        let northbound = Northbound { committed: &|_| true, holds: &|_| false };
        let actions = self.ledger.evaluate(&self.cluster.store, || 7, &northbound, 64);
        let mut created = Vec::new();
        for action in actions {
            let Action::Record(ip) = action else { panic!("{action:?}") };
            self.put(shared(ip.clone()));
            created.push(ip);
        }
        created
    }

    /// Patches that the pod's owner wants of an object that looks like `seen`.
    fn patches(&self, pod: &str, kind: Kind, key: &str, seen: &Seen) -> Vec<Patch> {
        let owner = Owner { feature: "pod", kind: Kind::Pod, key: pod.into() };
        let mut wish = Wish::new(Judgement::None);
        let derived = self.cluster.engine.derived(&owner).expect("the pod is known");
        let of_target = |w: &&kube_ovn::store::Wanted| w.target() == (kind, &Text::from(key));
        derived.wanted.iter().filter(of_target).for_each(|w| wish.add(w));
        decide(kind, &wish, seen, Timestamp::UNIX_EPOCH).patches
    }
}

/// The IP as the API server holds it after its creation.
fn seen_of(ip: &Ip) -> Seen {
    let raw = serde_json::to_value(ip_resource(ip, None)).unwrap();
    Seen::of(&serde_json::from_value::<DynamicObject>(raw).unwrap())
}

#[test]
fn a_scheduled_pod_costs_two_writes() {
    let mut controller = Controller::new();
    let mut writes = 0;
    // Created, then placed: the usual order of events, each with all that follows from it.
    for node in [None, Some("node1")] {
        controller.put(shared(pod("default", "a", node)));
        for ip in controller.creations() {
            writes += 1;
            let seen = seen_of(&ip);
            assert_eq!(controller.patches("default/a", Kind::Ip, &ip.name, &seen), vec![]);
            let patches = controller.patches("default/a", Kind::Pod, "default/a", &Seen::default());
            writes += patches.len();
            assert_eq!(
                patches[0].body["metadata"]["annotations"]["ovn.kubernetes.io/routed"],
                json!("true")
            );
        }
    }
    assert_eq!(writes, 2);
}

/// A pod that nobody could place for a while pays for it later.
#[test]
fn a_pod_that_is_placed_late_costs_two_more() {
    let mut controller = Controller::new();
    controller.put(shared(pod("default", "a", None)));
    assert_eq!(controller.creations().len(), 0);
    controller.ledger.overdue("default/a".into());
    let ip = controller.creations().remove(0);
    let seen = Seen::default();
    let early = controller.patches("default/a", Kind::Pod, "default/a", &seen);
    assert_eq!(early.len(), 1);
    controller.put(shared(pod("default", "a", Some("node1"))));
    assert_eq!(controller.patches("default/a", Kind::Ip, &ip.name, &seen_of(&ip)).len(), 1);
    let late = controller.patches("default/a", Kind::Pod, "default/a", &seen);
    assert_eq!(late.len(), 1);
}
