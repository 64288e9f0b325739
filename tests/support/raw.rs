//! Raw Kubernetes objects in YAML -> what the store takes in, through the real parsers.

use std::{path::Path, sync::Arc};

use kube_ovn::{
    api::{Chassis, Gateway, Invalid, Ip, Kind, Settings, Text, Vpc, crd, parse},
    net::DualStack,
    store::Stored,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::objects::settings;

/// One change of the cluster.
#[derive(Debug, Clone)]
pub struct Event {
    pub kind: Kind,
    pub key: Text,
    pub what: What,
}

#[derive(Debug, Clone)]
pub enum What {
    Present(Arc<dyn Stored>),
    /// Counts as absent.
    Refused(Vec<Invalid>),
    Deleted,
}

/// Documents of a file, with `include: <path>` documents replaced by those of that file (relative
/// to `tests/cases`).
pub fn documents(root: &Path, file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let mut all = Vec::new();
    for part in format!("\n{text}").split("\n---") {
        if part.lines().all(|l| l.trim().is_empty() || l.starts_with('#')) {
            continue;
        }
        let document: Value = serde_saphyr::from_str(part)
            .unwrap_or_else(|e| panic!("{}: {e}\n{part}", file.display()));
        match document["include"].as_str() {
            Some(path) => all.extend(documents(root, &root.join(path))),
            None => all.push(document),
        }
    }
    all
}

/// The settings of the documents, or the default ones.
pub fn settings_of(documents: &[Value], before: &Settings) -> Settings {
    let given = documents.iter().rev().find(|d| d["kind"] == "Settings" && d["delete"] != true);
    given.map_or_else(|| before.clone(), read_settings)
}

fn read_settings(document: &Value) -> Settings {
    let mut all = settings();
    for (field, value) in document["spec"].as_object().into_iter().flatten() {
        let text = || value.as_str().unwrap().into();
        let flag = || value.as_bool().unwrap();
        match field.as_str() {
            "clusterRouter" => all.cluster_router = text(),
            "defaultSubnet" => all.default_subnet = text(),
            "nodeSwitch" => all.node_switch = text(),
            "podNicType" => all.pod_nic_type = text(),
            "enableNp" => all.enable_np = flag(),
            "enableAnp" => all.enable_anp = flag(),
            "enableLb" => all.enable_lb = flag(),
            "preferLocal" => all.load_balancers.prefer_local = flag(),
            "keepVmIp" => all.keep_vm_ip = flag(),
            "enableIpsec" => all.enable_ipsec = flag(),
            "nodeLocalDns" => {
                let ips = DualStack::parse_addresses(value.as_str().unwrap()).unwrap();
                all.node_local_dns = ips.iter().map(|(_, ip)| *ip).collect();
            }
            other => panic!("unknown setting {other}"),
        }
    }
    all
}

/// An object as the watch would hand it over.
pub fn read(document: &Value, settings: &Settings) -> Event {
    let name = document["metadata"]["name"].as_str().unwrap_or_default();
    let key: Text = match document["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{name}").into(),
        None => name.into(),
    };
    let kind_name = document["kind"].as_str().expect("kind");
    let kind = Kind::ALL.iter().copied().find(|k| k.name() == kind_name);
    let kind = kind.unwrap_or_else(|| panic!("unknown kind {kind_name}"));
    if document["delete"] == true {
        return Event { kind, key, what: What::Deleted };
    }
    let what = match kind {
        Kind::Settings => present(settings.clone()),
        Kind::Vpc => {
            let (vpc, invalid) = parse::parse_vpc(&typed(document));
            present(Vpc { invalid, ..vpc })
        }
        Kind::Subnet => either(parse::parse_subnet(&typed::<crd::Subnet>(document), settings)),
        // Cases leave the finalizer out; `request: true` is an object that a user made.
        Kind::Ip => either(parse::parse_ip(&typed(document)).map(|ip| {
            let managed = ip.managed || document["request"] != true;
            Ip { managed, ..ip }
        })),
        Kind::IpPool => either(parse::parse_ippool(&typed(document))),
        Kind::Node => present(parse::parse_node(&typed(document))),
        Kind::Namespace => present(parse::parse_namespace(&typed(document))),
        Kind::Pod => present(parse::parse_pod(&typed(document))),
        Kind::SecurityGroup => present(parse::parse_security_group(&typed(document))),
        Kind::AdminNetworkPolicy => either(parse::parse_admin_network_policy(&typed(document))),
        Kind::BaselineAdminNetworkPolicy => {
            either(parse::parse_baseline_admin_network_policy(&typed(document)))
        }
        Kind::NetworkPolicy => present(parse::parse_network_policy(&typed(document))),
        Kind::ExternalGateway => present(parse::parse_external_gateway(&typed(document))),
        Kind::Service => present(parse::parse_service(&typed(document))),
        Kind::EndpointSlice => present(parse::parse_endpoint_slice(&typed(document))),
        Kind::ServiceCidr => present(parse::parse_service_cidr(&typed(document))),
        Kind::StatefulSet => present(parse::parse_stateful_set(&typed(document))),
        Kind::VirtualMachine => present(parse::parse_virtual_machine(&typed(document))),
        Kind::VirtualMachineInstance => {
            present(parse::parse_virtual_machine_instance(&typed(document)))
        }
        Kind::Attachment => present(parse::parse_attachment(&typed(document))),
        Kind::Chassis => present(Chassis {
            name: name.into(),
            hostname: document["hostname"].as_str().unwrap_or_default().into(),
        }),
        Kind::Gateway => {
            let active = document["active"].as_array().into_iter().flatten();
            present(Gateway {
                subnet: name.into(),
                active: active.map(|n| n.as_str().unwrap().into()).collect(),
            })
        }
    };
    Event { kind, key, what }
}

fn typed<T: DeserializeOwned>(document: &Value) -> T {
    serde_json::from_value(document.clone()).unwrap_or_else(|e| panic!("{e}: {document}"))
}

fn present(object: impl Stored) -> What {
    What::Present(Arc::new(object))
}

fn either<T: Stored>(result: Result<T, Vec<Invalid>>) -> What {
    result.map_or_else(What::Refused, present)
}
