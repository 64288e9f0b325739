//! Where the kinds live on the API server.

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
};

use super::Target;
use crate::api::{Kind, admin_raw, names};

/// API of a kind; `None` for tables that are not Kubernetes objects.
pub fn api_resource(kind: Kind) -> Option<ApiResource> {
    let (group, plural) = match kind {
        Kind::Vpc => (names::GROUP, "vpcs"),
        Kind::Subnet => (names::GROUP, "subnets"),
        Kind::Ip => (names::GROUP, "ips"),
        Kind::IpPool => (names::GROUP, "ippools"),
        Kind::SecurityGroup => (names::GROUP, "security-groups"),
        Kind::Node => ("", "nodes"),
        Kind::Namespace => ("", "namespaces"),
        Kind::Pod => ("", "pods"),
        Kind::NetworkPolicy => ("networking.k8s.io", "networkpolicies"),
        Kind::Service => ("", "services"),
        Kind::AdminNetworkPolicy => (admin_raw::GROUP, "adminnetworkpolicies"),
        Kind::BaselineAdminNetworkPolicy => (admin_raw::GROUP, "baselineadminnetworkpolicies"),
        _ => return None,
    };
    let version = if group == admin_raw::GROUP { admin_raw::VERSION } else { names::VERSION };
    let api_version = match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    };
    Some(ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version,
        kind: kind.name().to_owned(),
        plural: plural.to_owned(),
    })
}

/// `(namespace, name)` of a key.
pub fn split_key(key: &str) -> (Option<&str>, &str) {
    match key.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, key),
    }
}

/// The API of one object and its name there.
pub fn api(client: &Client, target: &Target) -> Option<(Api<DynamicObject>, String)> {
    let resource = api_resource(target.0)?;
    let (namespace, name) = split_key(&target.1);
    let api = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    Some((api, name.to_owned()))
}
