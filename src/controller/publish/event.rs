//! core/v1 Events. The name is made of the content, so a restart counts the same Event up instead
//! of adding another.

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use sha2::{Digest, Sha256};

use super::{
    Notice, Target,
    resource::{api_resource, split_key},
};
use crate::{
    api::Kind,
    store::{EventType, watch::Seen},
};

/// `<object>.<16 hex digits>`, cut to the 253 characters a name may have.
pub fn event_name(target: &Target, notice: &Notice) -> String {
    let (kind, key) = target;
    let text = format!("{}\n{key}\n{}\n{}", kind.name(), notice.reason, notice.message);
    let digest = Sha256::digest(text);
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let (_, name) = split_key(key);
    format!("{}.{hex}", name.chars().take(236).collect::<String>())
}

/// The Event of a notice; `None` for tables that are not Kubernetes objects. Events of cluster
/// objects live in namespace `default`, as client-go has it.
pub fn event_object(
    target: &Target,
    seen: &Seen,
    notice: &Notice,
    component: &str,
    now: Timestamp,
) -> Option<Event> {
    let resource = api_resource(target.0)?;
    let (namespace, name) = split_key(&target.1);
    // kubectl describe finds the events of a Node by its name as uid.
    let uid = if target.0 == Kind::Node { name.to_owned() } else { seen.uid.to_string() };
    let mut event = Event {
        involved_object: ObjectReference {
            api_version: Some(resource.api_version),
            kind: Some(resource.kind),
            name: Some(name.to_owned()),
            namespace: namespace.map(str::to_owned),
            resource_version: Some(seen.resource_version.to_string()),
            uid: Some(uid),
            ..ObjectReference::default()
        },
        reason: Some(notice.reason.to_owned()),
        message: Some(notice.message.clone()),
        type_: Some(match notice.event {
            EventType::Normal => "Normal".to_owned(),
            EventType::Warning => "Warning".to_owned(),
        }),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource { component: Some(component.to_owned()), host: None }),
        reporting_component: Some(component.to_owned()),
        ..Event::default()
    };
    event.metadata.name = Some(event_name(target, notice));
    event.metadata.namespace = Some(namespace.unwrap_or("default").to_owned());
    Some(event)
}
