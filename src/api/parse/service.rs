use std::net::IpAddr;

use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use kube::{ResourceExt, api::DynamicObject};

use crate::{
    api::{
        Endpoint, EndpointPort, EndpointSlice, EndpointState, Protocol, Service, ServiceCidr,
        ServicePort, Text, TrafficPolicy,
        names::{Session, annotation, label},
    },
    net::{Cidr, Family, parse_ip},
};

use super::{
    filled,
    findings::{Findings, reason},
    items, map, text,
};

/// Default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
pub const SESSION_SECONDS: u32 = 10800;

/// A Service, as kube-proxy would read it.
pub fn parse_service(raw: &core::Service) -> Service {
    let mut found = Findings::new(reason::SERVICE);
    let empty = core::ServiceSpec::default();
    let spec = raw.spec.as_ref().unwrap_or(&empty);
    let is_load_balancer = spec.type_.as_deref() == Some("LoadBalancer");
    let (cluster_ips, external_ips) = addresses(raw, spec, &mut found);
    let local = |policy: Option<&String>| match policy.map(String::as_str) {
        Some("Local") => TrafficPolicy::Local,
        _ => TrafficPolicy::Cluster,
    };
    let session = match spec.session_affinity.as_deref() {
        Some("ClientIP") => Session::ClientIp,
        _ => Session::None,
    };
    let client = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
    let seconds = client.and_then(|c| c.timeout_seconds).and_then(|n| u32::try_from(n).ok());
    Service {
        namespace: text(raw.metadata.namespace.as_ref()),
        name: raw.name_any().into(),
        cluster_ips,
        external_ips,
        ports: spec.ports.iter().flatten().filter_map(port).collect(),
        selector: map(spec.selector.as_ref()),
        session,
        session_seconds: seconds.unwrap_or(SESSION_SECONDS),
        internal_traffic: local(spec.internal_traffic_policy.as_ref()),
        external_traffic: local(spec.external_traffic_policy.as_ref()),
        is_load_balancer,
        vpc: raw.annotations().get(annotation::VPC).and_then(|v| filled(v)),
        created: raw.creation_timestamp().map_or(0, |t| t.0.as_second()),
        invalid: found.into_list(),
    }
}

/// Addresses inside the cluster, and external ones. None of a Service that kube-proxy would leave
/// alone too: headless, ExternalName, or with a proxy of its own.
fn addresses(
    raw: &core::Service,
    spec: &core::ServiceSpec,
    found: &mut Findings,
) -> (Vec<IpAddr>, Vec<IpAddr>) {
    if let Some(vips) = raw.annotations().get(annotation::SWITCH_LB_VIP) {
        let name = annotation::SWITCH_LB_VIP;
        let vips = items(vips).filter_map(|ip| found.take(name, ip, parse_ip(ip)));
        return (distinct(vips), Vec::new());
    }
    let foreign = raw.labels().contains_key(label::SERVICE_PROXY_NAME);
    if foreign || spec.type_.as_deref() == Some("ExternalName") {
        return (Vec::new(), Vec::new());
    }
    let listed = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let cluster_ips = distinct(listed.filter_map(|ip| parse_ip(ip).ok()));
    if cluster_ips.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let mut external: Vec<IpAddr> =
        spec.external_ips.iter().flatten().filter_map(|ip| parse_ip(ip).ok()).collect();
    // Source ranges are a firewall that a load balancer of OVN has not: kube-proxy's business.
    if spec.load_balancer_source_ranges.as_ref().is_none_or(Vec::is_empty) {
        let status = raw.status.as_ref().and_then(|s| s.load_balancer.as_ref());
        let ingress = status.and_then(|l| l.ingress.as_ref()).into_iter().flatten();
        // Mode Proxy: what is sent there must really pass the load balancer.
        let direct = ingress.filter(|i| i.ip_mode.as_deref() != Some("Proxy"));
        external.extend(direct.filter_map(|i| parse_ip(i.ip.as_ref()?).ok()));
    }
    let families: Vec<Family> = cluster_ips.iter().map(|ip| Family::of(*ip)).collect();
    external.retain(|ip| families.contains(&Family::of(*ip)) && !cluster_ips.contains(ip));
    (cluster_ips, distinct(external))
}

/// A ServiceCIDR. The API server has validated it; what cannot be read is no range.
pub fn parse_service_cidr(raw: &DynamicObject) -> ServiceCidr {
    let ranges = raw.data["spec"]["cidrs"].as_array().into_iter().flatten();
    let ranges = ranges.filter_map(|range| range.as_str()?.parse::<Cidr>().ok());
    ServiceCidr { name: raw.name_any().into(), ranges: ranges.map(Cidr::network).collect() }
}

/// In the order given.
fn distinct(all: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut kept = Vec::new();
    for ip in all {
        if !kept.contains(&ip) {
            kept.push(ip);
        }
    }
    kept
}

fn parse_protocol(protocol: Option<&String>) -> Option<Protocol> {
    match protocol.map_or("TCP", String::as_str) {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

fn parse_port(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0)
}

fn port(raw: &core::ServicePort) -> Option<ServicePort> {
    Some(ServicePort {
        name: text(raw.name.as_ref()),
        protocol: parse_protocol(raw.protocol.as_ref())?,
        port: parse_port(raw.port)?,
    })
}

/// An EndpointSlice. Host names (address type FQDN) and ports without a number are no backends.
pub fn parse_endpoint_slice(raw: &discovery::EndpointSlice) -> EndpointSlice {
    let namespace = text(raw.metadata.namespace.as_ref());
    let service = raw.labels().get(label::SERVICE_NAME);
    let mut endpoints: Vec<Endpoint> = raw.endpoints.iter().filter_map(endpoint).collect();
    endpoints.sort();
    let ports = raw.ports.iter().flatten().filter_map(|p| {
        Some(EndpointPort {
            name: text(p.name.as_ref()),
            protocol: parse_protocol(p.protocol.as_ref())?,
            port: parse_port(p.port?)?,
        })
    });
    EndpointSlice {
        service: service.map(|s| format!("{namespace}/{s}").into()),
        ports: ports.collect(),
        name: raw.name_any().into(),
        namespace,
        endpoints,
    }
}

fn endpoint(raw: &discovery::Endpoint) -> Option<Endpoint> {
    let conditions = raw.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    let pod = raw.target_ref.as_ref().filter(|t| t.kind.as_deref() == Some("Pod"));
    let zones = raw.hints.as_ref().and_then(|h| h.for_zones.as_ref()).into_iter().flatten();
    let mut zones: Vec<Text> = zones.map(|z| z.name.as_str().into()).collect();
    zones.sort();
    Some(Endpoint {
        // An endpoint has one address; more were never given a meaning.
        address: parse_ip(raw.addresses.first()?).ok()?,
        node: raw.node_name.as_deref().and_then(filled),
        pod: pod.and_then(|t| filled(t.name.as_deref()?)),
        state: match (ready, serving && terminating) {
            (true, _) => EndpointState::Ready,
            (false, true) => EndpointState::Leaving,
            (false, false) => EndpointState::Unready,
        },
        zones,
    })
}
