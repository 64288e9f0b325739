//! Custom resources whose kind this version does not act on. Their CRDs are installed, so that
//! objects of a cluster that is taken over stay and tools that list them work; each object says by
//! an Event that nothing is configured for it, instead of looking as if it were in force.

use std::collections::BTreeSet;

use futures::{StreamExt, pin_mut};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        events::{Event, EventType, Recorder, Reporter},
        watcher::{self, watcher},
    },
};
use tokio::task::JoinSet;

use crate::api::crd;

/// `reason` of the Event.
pub const REASON: &str = "NotSupported";

/// The kinds, as the API server knows them. A feature that comes takes its own kind out.
pub fn kinds() -> Vec<ApiResource> {
    fn of<K: Resource<DynamicType = ()>>() -> ApiResource {
        ApiResource::erase::<K>(&())
    }
    vec![
        of::<crd::ProviderNetwork>(),
        of::<crd::Vlan>(),
        of::<crd::Vip>(),
        of::<crd::VpcNatGateway>(),
        of::<crd::IptablesEip>(),
        of::<crd::IptablesFipRule>(),
        of::<crd::IptablesDnatRule>(),
        of::<crd::IptablesSnatRule>(),
        of::<crd::OvnEip>(),
        of::<crd::OvnFip>(),
        of::<crd::OvnSnatRule>(),
        of::<crd::OvnDnatRule>(),
        of::<crd::VpcEgressGateway>(),
        of::<crd::VpcDns>(),
        of::<crd::SwitchLbRule>(),
        of::<crd::QosPolicy>(),
    ]
}

/// What the Event says of an object of `kind`.
pub fn note(kind: &str) -> String {
    format!(
        "this version of Kube-OVN does not act on {kind} objects: nothing is configured for this \
         one; delete it, or keep it for a version that does"
    )
}

/// Tells the owners of such objects, until it is dropped.
pub async fn tell_unsupported(client: Client, component: &str) {
    let mut watches = JoinSet::new();
    for resource in kinds() {
        let reporter = Reporter { controller: component.to_owned(), instance: None };
        let recorder = Recorder::new(client.clone(), reporter);
        watches.spawn(tell(client.clone(), resource, recorder));
    }
    while watches.join_next().await.is_some() {}
}

async fn tell(client: Client, resource: ApiResource, recorder: Recorder) {
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &resource);
    let objects = watcher(api, watcher::Config::default()).default_backoff().applied_objects();
    pin_mut!(objects);
    // One Event per object and leader: a change of its text changes nothing of this.
    let mut told: BTreeSet<String> = BTreeSet::new();
    while let Some(object) = objects.next().await {
        // A CRD that the user removed, or an API server that is away: the watch tries again.
        let Ok(object) = object else { continue };
        let uid = object.uid().unwrap_or_default();
        if object.metadata.deletion_timestamp.is_some() || told.contains(&uid) {
            continue;
        }
        if publish(&recorder, &resource, &object).await {
            told.insert(uid);
        }
    }
}

async fn publish(
    recorder: &Recorder,
    resource: &ApiResource,
    object: &PartialObjectMeta<DynamicObject>,
) -> bool {
    let event = Event {
        type_: EventType::Warning,
        reason: REASON.to_owned(),
        note: Some(note(&resource.kind)),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    let reference = object.object_ref(resource);
    match recorder.publish(&event, &reference).await {
        Ok(()) => {
            let name = object.name_any();
            tracing::warn!(kind = resource.kind, name, "a kind that this version does not act on");
            true
        }
        Err(error) => {
            tracing::warn!(%error, kind = resource.kind, "cannot say that it is not supported");
            false
        }
    }
}
