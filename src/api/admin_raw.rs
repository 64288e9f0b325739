//! policy.networking.k8s.io/v1alpha1 as the API server stores it. The CRDs are the user's
//! (network-policy-api v0.1.2 and later); nothing here is checked.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::CustomResource;
use serde::{Deserialize, Serialize};

pub const GROUP: &str = "policy.networking.k8s.io";
pub const VERSION: &str = "v1alpha1";

/// `spec` of an [`AdminNetworkPolicy`].
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "policy.networking.k8s.io",
    version = "v1alpha1",
    kind = "AdminNetworkPolicy",
    plural = "adminnetworkpolicies",
    schema = "disabled"
)]
#[serde(default)]
pub struct AdminNetworkPolicySpec {
    /// 0 to 1000, lower comes first.
    pub priority: i64,
    pub subject: Subject,
    pub ingress: Vec<Rule>,
    pub egress: Vec<Rule>,
}

/// `spec` of a [`BaselineAdminNetworkPolicy`].
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "policy.networking.k8s.io",
    version = "v1alpha1",
    kind = "BaselineAdminNetworkPolicy",
    plural = "baselineadminnetworkpolicies",
    schema = "disabled"
)]
#[serde(default)]
pub struct BaselineAdminNetworkPolicySpec {
    pub subject: Subject,
    pub ingress: Vec<Rule>,
    pub egress: Vec<Rule>,
}

/// The pods that a policy is about; one field is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subject {
    pub namespaces: Option<Namespaces>,
    pub pods: Option<Pods>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    pub name: String,
    /// `Allow`, `Deny`, `Pass`.
    pub action: String,
    pub from: Vec<Peer>,
    pub to: Vec<Peer>,
    pub ports: Option<Vec<Port>>,
}

/// The other end; one field is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Peer {
    pub namespaces: Option<Namespaces>,
    pub pods: Option<Pods>,
    pub nodes: Option<LabelSelector>,
    pub networks: Option<Vec<String>>,
    pub domain_names: Option<Vec<String>>,
}

/// A label selector. Before v0.1.2 the selector was a field of its own and had company: read as
/// today's, such an object would select every namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Namespaces {
    pub match_labels: Option<BTreeMap<String, String>>,
    pub match_expressions: Option<Vec<LabelSelectorRequirement>>,
    pub namespace_selector: Option<serde_json::Value>,
    pub same_labels: Option<Vec<String>>,
    pub not_same_labels: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Pods {
    pub namespace_selector: Option<LabelSelector>,
    pub pod_selector: Option<LabelSelector>,
    /// Before v0.1.2.
    pub namespaces: Option<serde_json::Value>,
}

/// Destination ports; one field is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Port {
    pub port_number: Option<PortNumber>,
    pub named_port: Option<String>,
    pub port_range: Option<PortRange>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortNumber {
    pub protocol: Option<String>,
    pub port: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortRange {
    pub protocol: Option<String>,
    pub start: i64,
    pub end: i64,
}
