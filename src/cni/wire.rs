//! The protocol between plugin and daemon: JSON bodies of `POST /api/v1/{add,del,check,gc,status}`.
//!
//! `add` and `del` keep upstream's field names, so plugin and daemon of either product work
//! together during an upgrade. Our one addition, `pod_uid`, is ignored by an older daemon and empty
//! when an older plugin does not send it.

use serde::{Deserialize, Serialize};

use super::spec::Dns;
use crate::{
    api::names::port_name,
    net::{Cidr, NetError, parse_ip},
};

/// Unix socket of the daemon when nothing else is configured.
pub const DEFAULT_SOCKET: &str = "/run/openvswitch/kube-ovn-daemon.sock";

/// Larger request bodies are refused: the biggest, a GC list, has about 100 bytes per container.
pub const MAX_BODY: usize = 4 << 20;

/// Endpoint of each command that reaches the daemon.
pub const ADD: &str = "/api/v1/add";
pub const DEL: &str = "/api/v1/del";
pub const CHECK: &str = "/api/v1/check";
pub const GC: &str = "/api/v1/gc";
pub const STATUS: &str = "/api/v1/status";

/// A route of the configuration or of a result. An empty `dst` is the default route of the
/// gateway's family; an empty `gw` a directly connected destination.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    #[serde(default)]
    pub dst: String,
    #[serde(default)]
    pub gw: String,
}

impl Route {
    /// Checks both fields; the message names the bad one.
    pub fn validate(&self) -> Result<(), NetError> {
        if !self.dst.is_empty() {
            self.dst.parse::<Cidr>()?;
        }
        if !self.gw.is_empty() {
            parse_ip(&self.gw)?;
        }
        if self.dst.is_empty() && self.gw.is_empty() {
            return Err(NetError::Cidr(String::new()));
        }
        Ok(())
    }
}

/// Body of `add`, `del` and `check`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    /// `type` of the configuration: `kube-ovn`, or the main plugin that delegates IPAM to us.
    pub cni_type: String,
    pub pod_name: String,
    pub pod_namespace: String,
    pub container_id: String,
    /// Path of the namespace; empty on a DEL after the sandbox is gone.
    pub net_ns: String,
    pub if_name: String,
    pub provider: String,
    #[serde(deserialize_with = "null_is_default")]
    pub routes: Vec<Route>,
    #[serde(deserialize_with = "null_is_default")]
    pub dns: Dns,
    pub vf_driver: String,
    #[serde(rename = "deviceID")]
    pub device_id: String,
    pub vhost_user_socket_volume_name: String,
    pub vhost_user_socket_name: String,
    pub vhost_user_socket_consumption: String,
    /// `K8S_POD_UID`: tells a pod from a same-named successor. Absent with older runtimes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_uid: String,
}

impl Request {
    /// `<pod>.<ns>` for the default provider, else `<pod>.<ns>.<provider>`: the name of the
    /// logical port and of the IP resource.
    pub fn port_name(&self) -> String {
        port_name(&self.pod_name, &self.pod_namespace, &self.provider)
    }
}

/// Answer to `add`; other answers only ever carry `error`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Response {
    /// `IPv4`, `IPv6` or `Dual`.
    pub protocol: String,
    /// Comma list, v4 first.
    pub address: String,
    pub mac_address: String,
    pub cidr: String,
    /// Empty when the interface does not carry the default route.
    pub gateway: String,
    #[serde(deserialize_with = "null_is_default")]
    pub routes: Vec<Route>,
    pub mtu: u32,
    pub nicname: String,
    #[serde(deserialize_with = "null_is_default")]
    pub dns: Dns,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// An attachment that the runtime still knows (`cni.dev/valid-attachments`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attachment {
    #[serde(rename = "containerID", alias = "container_id")]
    pub container_id: String,
    #[serde(rename = "ifname", alias = "if_name")]
    pub if_name: String,
}

/// Body of `gc`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcRequest {
    #[serde(default)]
    pub provider: String,
    pub valid_attachments: Vec<Attachment>,
}

/// Why a request body is refused (status 400).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("request body is not valid JSON of this endpoint: {0}")]
    Json(String),
    #[error("request field {field} {problem}")]
    Field { field: &'static str, problem: String },
}

fn field(field: &'static str, problem: impl Into<String>) -> BadRequest {
    BadRequest::Field { field, problem: problem.into() }
}

/// Parses and validates the body of `add` or `check`.
pub fn parse_add(body: &[u8]) -> Result<Request, BadRequest> {
    let request = parse_del(body)?;
    for (name, value) in [
        ("pod_name", &request.pod_name),
        ("pod_namespace", &request.pod_namespace),
        ("net_ns", &request.net_ns),
        ("if_name", &request.if_name),
    ] {
        if value.is_empty() {
            return Err(field(name, "is empty"));
        }
    }
    for route in &request.routes {
        route.validate().map_err(|e| field("routes", format!("has a bad route: {e}")))?;
    }
    Ok(request)
}

/// Parses and validates the body of `del`: only the container must be known.
pub fn parse_del(body: &[u8]) -> Result<Request, BadRequest> {
    let mut request: Request =
        serde_json::from_slice(body).map_err(|e| BadRequest::Json(e.to_string()))?;
    if request.provider.is_empty() {
        request.provider = "ovn".to_owned();
    }
    super::spec::validate_container_id(&request.container_id)
        .map_err(|_| field("container_id", format!("is {:?}", request.container_id)))?;
    if !request.if_name.is_empty() {
        super::spec::validate_interface_name(&request.if_name)
            .map_err(|e| field("if_name", format!("is refused: {}", e.details)))?;
    }
    for (name, value) in [
        ("pod_name", &request.pod_name),
        ("pod_namespace", &request.pod_namespace),
        ("provider", &request.provider),
    ] {
        if !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
            return Err(field(name, format!("is {value:?}; not a Kubernetes name")));
        }
    }
    if request.net_ns.contains('\0') {
        return Err(field("net_ns", "contains a NUL byte"));
    }
    Ok(request)
}

/// Parses the body of `gc`.
pub fn parse_gc(body: &[u8]) -> Result<GcRequest, BadRequest> {
    serde_json::from_slice(body).map_err(|e| BadRequest::Json(e.to_string()))
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
