use k8s_openapi::api::apps::v1 as apps;
use kube::{ResourceExt, api::DynamicObject};
use serde_json::Value;

use crate::api::{
    Attachment, Plugin, StatefulSet, VirtualMachine, VirtualMachineInstance, names::annotation,
};

use super::{filled, text};

/// CNI type of our plugin.
const PLUGIN_TYPE: &str = "kube-ovn";

pub fn parse_stateful_set(raw: &apps::StatefulSet) -> StatefulSet {
    let spec = raw.spec.as_ref();
    let start = spec.and_then(|s| s.ordinals.as_ref()?.start).unwrap_or(0);
    let replicas = spec.and_then(|s| s.replicas).unwrap_or(1);
    let template = spec.and_then(|s| s.template.metadata.as_ref()?.annotations.as_ref());
    StatefulSet {
        namespace: text(raw.metadata.namespace.as_ref()),
        name: raw.name_any().into(),
        start: u64::try_from(start).unwrap_or(0),
        replicas: u64::try_from(replicas).unwrap_or(0),
        subnet: template.and_then(|a| filled(a.get(annotation::LOGICAL_SWITCH)?)),
        deleting: raw.metadata.deletion_timestamp.is_some(),
    }
}

pub fn parse_virtual_machine(raw: &DynamicObject) -> VirtualMachine {
    VirtualMachine {
        namespace: text(raw.metadata.namespace.as_ref()),
        name: raw.name_any().into(),
        deleting: raw.metadata.deletion_timestamp.is_some(),
    }
}

pub fn parse_virtual_machine_instance(raw: &DynamicObject) -> VirtualMachineInstance {
    let VirtualMachine { namespace, name, deleting } = parse_virtual_machine(raw);
    VirtualMachineInstance { namespace, name, deleting }
}

/// A NetworkAttachmentDefinition. One without a readable configuration (it may be a file on the
/// nodes) belongs to another plugin.
pub fn parse_attachment(raw: &DynamicObject) -> Attachment {
    let config = raw.data["spec"]["config"].as_str().unwrap_or_default();
    let config: Value = serde_json::from_str(config).unwrap_or_default();
    let listed = config["plugins"].as_array().into_iter().flatten();
    let plugins: Vec<&Value> = std::iter::once(&config).chain(listed).collect();
    let own = plugins.iter().find(|p| p["type"] == PLUGIN_TYPE);
    let ipam = plugins.iter().map(|p| &p["ipam"]).find(|i| i["type"] == PLUGIN_TYPE);
    let provider = own.copied().or(ipam).map(|block| &block["provider"]);
    Attachment {
        namespace: text(raw.metadata.namespace.as_ref()),
        name: raw.name_any().into(),
        plugin: if own.is_some() { Plugin::KubeOvn } else { Plugin::Other },
        provider: provider.and_then(Value::as_str).unwrap_or_default().into(),
    }
}
