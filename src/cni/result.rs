//! The result of ADD in the layout of each specification version.
//!
//! Sources: SPEC.md "Success" of versions 0.2.0, 0.4.0, 1.0.0 and 1.1.0.

use std::net::IpAddr;

use serde::Serialize;

use super::{
    spec::{CniError, Code, Dns, Version},
    wire::{Response, Route},
};
use crate::net::{Cidr, DualStack, Family, parse_ip};

/// What ADD made, before it is laid out for a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// `None` when only addresses were asked for.
    pub interface: Option<Interface>,
    /// In the order of the answer's `cidr`.
    pub ips: Vec<IpConfig>,
    pub routes: Vec<RouteConfig>,
    pub dns: Dns,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub mac: String,
    /// 0 is unknown.
    pub mtu: u32,
    pub sandbox: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpConfig {
    pub address: Cidr,
    pub gateway: Option<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteConfig {
    pub dst: Cidr,
    pub gw: Option<IpAddr>,
}

fn bad_answer(what: impl std::fmt::Display) -> CniError {
    CniError::new(Code::Rpc, "RPC failed")
        .details(format!("the daemon's answer is unusable: {what}"))
}

/// Interprets the daemon's answer for the sandbox at `net_ns`.
pub fn parse_response(response: &Response, net_ns: &str) -> Result<Outcome, CniError> {
    let addresses = DualStack::parse_addresses(&response.address).map_err(bad_answer)?;
    let gateways = match response.gateway.as_str() {
        "" => DualStack::default(),
        text => DualStack::parse_addresses(text).map_err(bad_answer)?,
    };
    let mut ips = Vec::new();
    for text in response.cidr.split(',') {
        let cidr: Cidr = text.parse().map_err(bad_answer)?;
        if let Some(address) = addresses.get(cidr.family()) {
            let gateway = gateways.get(cidr.family()).copied();
            ips.push(IpConfig { address: cidr.with_address(*address), gateway });
        }
    }
    if ips.is_empty() {
        return Err(bad_answer(format!(
            "address {:?} has no prefix in cidr {:?}",
            response.address, response.cidr
        )));
    }
    let mut routes = response.routes.iter().map(parse_route).collect::<Result<Vec<_>, _>>()?;
    if routes.is_empty() {
        routes.extend(ips.iter().filter_map(|ip| {
            let gw = ip.gateway?;
            Some(RouteConfig { dst: Family::of(gw).default_route(), gw: Some(gw) })
        }));
    }
    let interface = (!response.nicname.is_empty()).then(|| Interface {
        name: response.nicname.clone(),
        mac: response.mac_address.clone(),
        mtu: response.mtu,
        sandbox: net_ns.to_owned(),
    });
    Ok(Outcome { interface, ips, routes, dns: response.dns.clone() })
}

fn parse_route(route: &Route) -> Result<RouteConfig, CniError> {
    let gw = match route.gw.as_str() {
        "" => None,
        text => Some(parse_ip(text).map_err(bad_answer)?),
    };
    let dst = match (route.dst.as_str(), gw) {
        ("", Some(gw)) => Family::of(gw).default_route(),
        ("", None) => return Err(bad_answer("a route has neither dst nor gw")),
        (text, _) => text.parse().map_err(bad_answer)?,
    };
    Ok(RouteConfig { dst, gw })
}

#[derive(Serialize)]
struct JsonRoute {
    dst: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gw: Option<IpAddr>,
}

impl From<&RouteConfig> for JsonRoute {
    fn from(route: &RouteConfig) -> Self {
        JsonRoute { dst: route.dst.to_string(), gw: route.gw }
    }
}

/// 0.1.0 and 0.2.0: one address per family, each with its own routes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Legacy<'a> {
    cni_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip4: Option<LegacyIp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip6: Option<LegacyIp>,
    dns: &'a Dns,
}

#[derive(Serialize)]
struct LegacyIp {
    ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<JsonRoute>,
}

/// 0.3.0 and later.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Current<'a> {
    cni_version: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    interfaces: Vec<JsonInterface<'a>>,
    ips: Vec<JsonIp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<JsonRoute>,
    dns: &'a Dns,
}

#[derive(Serialize)]
struct JsonInterface<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    mac: &'a str,
    /// Since 1.1.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(skip_serializing_if = "str::is_empty")]
    sandbox: &'a str,
}

#[derive(Serialize)]
struct JsonIp {
    /// Until 0.4.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<char>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<u32>,
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
}

impl Outcome {
    /// The text that the plugin prints.
    pub fn json(&self, version: Version) -> String {
        let printed = if version < Version::V030 {
            serde_json::to_string(&self.legacy(version))
        } else {
            serde_json::to_string(&self.current(version))
        };
        printed.unwrap_or_default()
    }

    fn legacy(&self, version: Version) -> Legacy<'_> {
        let of = |family: Family| {
            let ip = self.ips.iter().find(|ip| ip.address.family() == family)?;
            let routes = self.routes.iter().filter(|r| r.dst.family() == family);
            Some(LegacyIp {
                ip: ip.address.to_string(),
                gateway: ip.gateway,
                routes: routes.map(JsonRoute::from).collect(),
            })
        };
        Legacy {
            cni_version: version.text(),
            ip4: of(Family::V4),
            ip6: of(Family::V6),
            dns: &self.dns,
        }
    }

    fn current(&self, version: Version) -> Current<'_> {
        let interfaces = self.interface.iter().map(|i| JsonInterface {
            name: &i.name,
            mac: &i.mac,
            mtu: (version >= Version::V110 && i.mtu > 0).then_some(i.mtu),
            sandbox: &i.sandbox,
        });
        let ips = self.ips.iter().map(|ip| JsonIp {
            version: (version < Version::V100).then(|| ip.address.family().digit()),
            interface: self.interface.is_some().then_some(0),
            address: ip.address.to_string(),
            gateway: ip.gateway,
        });
        Current {
            cni_version: version.text(),
            interfaces: interfaces.collect(),
            ips: ips.collect(),
            routes: self.routes.iter().map(JsonRoute::from).collect(),
            dns: &self.dns,
        }
    }
}
