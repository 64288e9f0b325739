use std::net::IpAddr;

use serde_json::Value;

use crate::{
    api::{Pod, Text, names::annotation},
    net::{DualStack, Mac},
};

use super::{fixed_addresses, items};

/// One network that a pod asks for beside or instead of the default one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRequest {
    /// `namespace/name` of the NetworkAttachmentDefinition.
    pub attachment: Text,
    /// `ips` of the element; empty when none.
    pub addresses: DualStack<IpAddr>,
    pub mac: Option<Mac>,
}

impl NetworkRequest {
    /// Whether a provider is one of this attachment, whatever its plugin.
    pub fn is_of(&self, provider: &str) -> bool {
        let Some((namespace, name)) = self.attachment.split_once('/') else { return false };
        let provider = provider.strip_suffix(".ovn").unwrap_or(provider);
        provider == format!("{name}.{namespace}")
    }
}

/// The networks of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodNetworks {
    /// Replaces the default network.
    pub default: Option<NetworkRequest>,
    pub further: Vec<NetworkRequest>,
}

impl PodNetworks {
    /// Whether the pod asks for a network of this provider.
    pub fn wants(&self, provider: &str) -> bool {
        match &self.default {
            None if provider == "ovn" => true,
            default => default.iter().chain(&self.further).any(|n| n.is_of(provider)),
        }
    }
}

/// Annotations `v1.multus-cni.io/default-network` and `k8s.v1.cni.cncf.io/networks`: a comma list
/// of `[namespace/]name[@interface]`, or JSON with `name`, `namespace`, `ips` and `mac`. A network
/// named twice counts once.
pub fn parse_pod_networks(pod: &Pod) -> Result<PodNetworks, String> {
    let get = |key: &str| pod.annotations.get(key).map(|t| t.trim()).filter(|t| !t.is_empty());
    let list = |key: &str| match get(key) {
        None => Ok(Vec::new()),
        Some(text) => {
            parse_list(text, &pod.namespace).map_err(|e| format!("annotation {key} {text:?}: {e}"))
        }
    };
    let default = list(annotation::DEFAULT_NETWORK)?.into_iter().next();
    let mut further: Vec<NetworkRequest> = Vec::new();
    for request in list(annotation::NETWORKS)? {
        let known = |n: &NetworkRequest| n.attachment == request.attachment;
        if !further.iter().any(known) && !default.as_ref().is_some_and(known) {
            further.push(request);
        }
    }
    Ok(PodNetworks { default, further })
}

fn parse_list(text: &str, namespace: &str) -> Result<Vec<NetworkRequest>, String> {
    if !text.starts_with(['[', '{']) {
        return items(text).map(|item| parse_name(item, namespace)).collect();
    }
    let value: Value = serde_json::from_str(text).map_err(|e| format!("{e}; correct the JSON"))?;
    let elements = match value {
        Value::Array(all) => all,
        one => vec![one],
    };
    elements.iter().map(|element| parse_element(element, namespace)).collect()
}

fn parse_name(item: &str, namespace: &str) -> Result<NetworkRequest, String> {
    let item = item.split('@').next().unwrap_or(item).trim();
    let (namespace, name) = item.split_once('/').unwrap_or((namespace, item));
    if name.is_empty() || namespace.is_empty() || name.contains('/') {
        return Err("write [namespace/]name[@interface]".to_owned());
    }
    Ok(NetworkRequest {
        attachment: format!("{namespace}/{name}").into(),
        addresses: DualStack::default(),
        mac: None,
    })
}

fn parse_element(element: &Value, namespace: &str) -> Result<NetworkRequest, String> {
    let field = |key: &str| element[key].as_str().filter(|t| !t.is_empty());
    let namespace = field("namespace").unwrap_or(namespace);
    let mut request = parse_name(field("name").ok_or("an element has no name")?, namespace)?;
    let ips: Vec<&str> =
        element["ips"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !ips.is_empty() {
        request.addresses = fixed_addresses(&ips.join(",")).map_err(|e| format!("ips: {e}"))?;
    }
    request.mac = field("mac").map(str::parse).transpose().map_err(|e| format!("mac: {e}"))?;
    Ok(request)
}
