//! Events that the node writes on pods.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::api::{Pod, Text};

/// Writes Events; cheap to clone.
#[derive(Clone)]
pub struct PodEvents(Recorder);

impl std::fmt::Debug for PodEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PodEvents")
    }
}

impl PodEvents {
    pub fn new(client: Client, node: &Text) -> Self {
        let controller = "kube-ovn-daemon".to_owned();
        let reporter = Reporter { controller, instance: Some(node.to_string()) };
        PodEvents(Recorder::new(client, reporter))
    }

    /// Best effort: an Event that cannot be written is logged.
    pub async fn warn(&self, pod: &Pod, reason: &'static str, message: String) {
        let reference = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(pod.name.to_string()),
            namespace: Some(pod.namespace.to_string()),
            uid: Some(pod.uid.to_string()),
            ..ObjectReference::default()
        };
        let (namespace, name) = (&pod.namespace, &pod.name);
        tracing::warn!(pod = %format!("{namespace}/{name}"), reason, %message, "event");
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(message),
            action: "Network".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.0.publish(&event, &reference).await {
            tracing::debug!(%error, "the event cannot be written");
        }
    }
}
