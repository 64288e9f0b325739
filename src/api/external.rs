//! The external gateway of the default VPC (manual 3.8).

use std::net::IpAddr;

use super::{Index, Invalid, Kind, Object, Text};
use crate::net::{Cidr, DualStack, Mac};

/// Name of the ConfigMap.
pub const EXTERNAL_GATEWAY_CONFIG: &str = "ovn-external-gw-config";

/// Flags about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalSettings {
    /// `--enable-eip-snat`.
    pub enabled: bool,
    /// Key of the ConfigMap, `<namespace>/<name>`.
    pub config: Text,
    /// `--external-gateway-switch`.
    pub switch: Text,
    /// `--external-gateway-net`: network name of the localnet port.
    pub network: Text,
    /// `--external-gateway-vlanid`; 0 = untagged.
    pub vlan: u16,
}

impl Default for ExternalSettings {
    fn default() -> Self {
        ExternalSettings {
            enabled: true,
            config: format!("kube-system/{EXTERNAL_GATEWAY_CONFIG}").into(),
            switch: "external".into(),
            network: "external".into(),
            vlan: 0,
        }
    }
}

/// ConfigMap `ovn-external-gw-config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalGateway {
    /// `<namespace>/<name>` of the ConfigMap.
    pub key: Text,
    /// `enable-external-gw`: anything but `false`.
    pub enabled: bool,
    pub placement: Placement,
    /// `external-gw-nic`.
    pub nic: Text,
    /// `external-gw-addr`; without it the gateways of the external subnet are meant.
    pub next_hops: DualStack<IpAddr>,
    /// `nic-ip`.
    pub addresses: DualStack<Cidr>,
    /// `nic-mac`.
    pub mac: Option<Mac>,
    /// What is wrong; the gateway is not set up while there is anything.
    pub invalid: Vec<Invalid>,
}

/// Where packets leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// On the first of these nodes that is alive.
    Centralized(Vec<Text>),
    /// Floating addresses leave on the pod's node; the rest on a labelled one.
    Distributed,
}

impl Object for ExternalGateway {
    const KIND: Kind = Kind::ExternalGateway;

    fn key(&self) -> Text {
        self.key.clone()
    }

    fn buckets(&self) -> Vec<(Index, Text)> {
        Vec::new()
    }
}
