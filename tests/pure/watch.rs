//! Events of a watch become updates of the store.

use kube::{api::DynamicObject, runtime::watcher::Event};
use kube_ovn::{
    api::{Invalid, Kind, Namespace, crd},
    store::watch::{Change, Refused, Seen, SeenMap, Tracker, Update, What, read_custom},
};
use serde_json::json;

fn raw(name: &str, spec: serde_json::Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "kubeovn.io/v1", "kind": "Subnet",
        "metadata": {"name": name, "uid": "u", "resourceVersion": "7", "generation": 2,
            "finalizers": ["kubeovn.io/kube-ovn-controller"],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "long", "a": "b"}},
        "spec": spec, "status": {"v4usingIPs": 3},
    }))
    .unwrap()
}

/// The type of the stored object does not matter here.
fn parse(subnet: &crd::Subnet) -> Result<Namespace, Vec<Invalid>> {
    match subnet.spec.cidr_block.as_str() {
        "" => Err(vec![Invalid { reason: "R", message: "no cidrBlock".into() }]),
        _ => Ok(Namespace {
            name: subnet.metadata.name.as_deref().unwrap().into(),
            labels: Default::default(),
            annotations: Default::default(),
            deleting: false,
        }),
    }
}

fn good(name: &str) -> DynamicObject {
    raw(name, json!({"cidrBlock": "10.0.0.0/8"}))
}

fn feed(tracker: &mut Tracker, event: Event<DynamicObject>) -> Vec<(String, &'static str)> {
    let read = |raw| read_custom(raw, parse);
    let shown = |update| match update {
        Update::Synced(kind) => (kind.name().to_owned(), "synced"),
        Update::Change(Change { key, what, .. }) => {
            let what = match what {
                What::Upsert(..) => "upsert",
                What::Refused(..) => "refused",
                What::Deleted => "deleted",
                What::AbsentAfterRelist => "absent",
            };
            (key.to_string(), what)
        }
    };
    tracker.updates(event, &read).into_iter().map(shown).collect()
}

#[test]
fn a_delete_that_was_watched_differs_from_one_found_by_a_relist() {
    let mut tracker = Tracker::default();
    let mut feed = |event| feed(&mut tracker, event);
    let one = |key: &str, what| vec![(key.to_owned(), what)];
    assert_eq!(feed(Event::Init), []);
    assert_eq!(feed(Event::InitApply(good("a"))), one("a", "upsert"));
    assert_eq!(feed(Event::InitApply(good("b"))), one("b", "upsert"));
    assert_eq!(feed(Event::InitApply(good("c"))), one("c", "upsert"));
    assert_eq!(feed(Event::InitDone), one("Namespace", "synced"));
    assert_eq!(feed(Event::Delete(good("a"))), one("a", "deleted"));
    assert_eq!(feed(Event::Apply(good("d"))), one("d", "upsert"));
    // A list that broke off says nothing about what it did not reach.
    feed(Event::Init);
    feed(Event::InitApply(good("c")));
    feed(Event::Init);
    feed(Event::InitApply(good("d")));
    feed(Event::InitApply(good("b")));
    let absent = vec![("c".to_owned(), "absent"), ("Namespace".to_owned(), "synced")];
    assert_eq!(feed(Event::InitDone), absent);
}

#[test]
fn malformed_and_invalid_objects_are_refused_alone() {
    let (seen, parsed) = read_custom(raw("bad", json!({"cidrBlock": 5})), parse);
    let invalid = parsed.unwrap_err().invalid;
    assert!(invalid[0].message.contains("bad is malformed"), "{invalid:?}");
    assert_eq!(seen.generation, 2);
    let mut tracker = Tracker::default();
    let refused = feed(&mut tracker, Event::Apply(raw("x", json!({}))));
    assert_eq!(refused, [("x".to_owned(), "refused")]);
}

#[test]
fn what_is_kept_of_a_raw_object() {
    let (seen, _) = read_custom(good("a"), parse);
    assert_eq!(&*seen.resource_version, "7");
    assert_eq!(seen.finalizers.len(), 1);
    assert_eq!(seen.annotations.len(), 1, "not the copy kubectl keeps");
    assert_eq!(seen.status.as_ref().unwrap().value(), json!({"v4usingIPs": 3}));
    assert_eq!(seen.spec.as_ref().unwrap().value()["cidrBlock"], "10.0.0.0/8");

    let mut map = SeenMap::default();
    let seen = std::sync::Arc::new(seen);
    let change = |what| Change { kind: Kind::Subnet, key: "a".into(), what };
    map.note(&change(What::Refused(Refused::default(), seen.clone())));
    assert_eq!(map.get(Kind::Subnet, "a"), Some(&seen));
    map.note(&change(What::Deleted));
    assert_eq!(map.get(Kind::Subnet, "a").map(|s| Seen::clone(s)), None);
}
