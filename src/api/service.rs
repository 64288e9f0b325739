//! Services and their endpoints, as far as load balancers need them.

use std::net::IpAddr;

use super::{
    Index, Invalid, Kind, Map, Object, Text,
    names::{Session, vpc_load_balancer},
};
use crate::net::{Cidr, Family};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// As OVN and the names of load balancers write it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrafficPolicy {
    Cluster,
    /// Only endpoints on the node of the client.
    Local,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// "" for the only port of a Service.
    pub name: Text,
    pub protocol: Protocol,
    pub port: u16,
}

/// A Service. One without addresses (headless, ExternalName, somebody else's proxy) has no load
/// balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub namespace: Text,
    pub name: Text,
    /// Cluster IPs, or what annotation `switch_lb_vip` puts in their place.
    pub cluster_ips: Vec<IpAddr>,
    /// externalIPs and addresses of the status.
    pub external_ips: Vec<IpAddr>,
    pub ports: Vec<ServicePort>,
    /// Labels of its pods; empty when it has none of its own.
    pub selector: Map,
    pub session: Session,
    /// Of `session`.
    pub session_seconds: u32,
    pub internal_traffic: TrafficPolicy,
    /// Of type LoadBalancer and NodePort.
    pub external_traffic: TrafficPolicy,
    /// Of type LoadBalancer.
    pub is_load_balancer: bool,
    /// Annotation `ovn.kubernetes.io/vpc`: where it was last, or where the user wants it.
    pub vpc: Option<Text>,
    /// creationTimestamp in seconds; of two Services with one address the younger one loses.
    pub created: i64,
    pub invalid: Vec<Invalid>,
}

impl Service {
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.cluster_ips.iter().chain(&self.external_ips).copied()
    }
}

/// Value of [`Index::ServicesBySelector`]: the first label that a Service selects by.
pub fn service_bucket(namespace: &str, key: &str, value: &str) -> String {
    format!("{namespace} {key}={value}")
}

/// Where a client connects to: the value of [`Index::ServicesByFront`].
pub fn front(address: IpAddr, port: &ServicePort) -> String {
    format!("{} {}", port.protocol.name(), socket(address, port.port))
}

/// `ip:port`, `[ip]:port`.
pub fn socket(address: IpAddr, port: u16) -> String {
    match Family::of(address) {
        Family::V4 => format!("{address}:{port}"),
        Family::V6 => format!("[{address}]:{port}"),
    }
}

impl Object for Service {
    const KIND: Kind = Kind::Service;

    fn key(&self) -> Text {
        format!("{}/{}", self.namespace, self.name).into()
    }

    fn buckets(&self) -> Vec<(Index, Text)> {
        let fronts = self.addresses().flat_map(|a| self.ports.iter().map(move |p| front(a, p)));
        let fronts = fronts.map(|f| (Index::ServicesByFront, f.into()));
        let label = self.selector.first_key_value();
        let label = label.map(|(key, value)| service_bucket(&self.namespace, key, value));
        fronts.chain(label.map(|label| (Index::ServicesBySelector, label.into()))).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointPort {
    pub name: Text,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub address: IpAddr,
    pub node: Option<Text>,
    /// Name of the pod behind it, in the namespace of the slice.
    pub pod: Option<Text>,
    pub state: EndpointState,
    /// Zones that are meant to use it; empty = no hint.
    pub zones: Vec<Text>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointState {
    Ready,
    /// Terminating, but still serving: used when none is ready.
    Leaving,
    /// Not to be used.
    Unready,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    pub namespace: Text,
    pub name: Text,
    /// `namespace/name` of its Service; `None` of a slice that belongs to none.
    pub service: Option<Text>,
    pub ports: Vec<EndpointPort>,
    /// In order.
    pub endpoints: Vec<Endpoint>,
}

impl Object for EndpointSlice {
    const KIND: Kind = Kind::EndpointSlice;

    fn key(&self) -> Text {
        format!("{}/{}", self.namespace, self.name).into()
    }

    fn buckets(&self) -> Vec<(Index, Text)> {
        self.service.iter().map(|s| (Index::SlicesByService, s.clone())).collect()
    }
}

/// A range of cluster IPs beside the one of `--service-cluster-ip-range`. One that is being deleted
/// counts as long as it is there: until no Service has an address of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceCidr {
    pub name: Text,
    pub ranges: Vec<Cidr>,
}

impl Object for ServiceCidr {
    const KIND: Kind = Kind::ServiceCidr;

    fn key(&self) -> Text {
        self.name.clone()
    }

    fn facets(&self) -> Vec<(Index, Text, Text)> {
        let ranges = self.ranges.iter();
        ranges.map(|range| (Index::ServiceRanges, "".into(), range.to_string().into())).collect()
    }
}

/// Flags about load balancers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadBalancerSettings {
    /// Names of the default VPC (`--cluster-tcp-loadbalancer` ...), by protocol and session.
    pub names: [[Text; 2]; 3],
    /// `--enable-ovn-lb-prefer-local`.
    pub prefer_local: bool,
}

impl LoadBalancerSettings {
    pub const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    pub const SESSIONS: [Session; 2] = [Session::None, Session::ClientIp];

    /// `name` gives the name for a flag.
    pub fn named(name: impl Fn(&str) -> String) -> Self {
        let of = |p: Protocol, s: Session| Text::from(name(&Self::flag(p, s)));
        let names = Self::PROTOCOLS.map(|p| Self::SESSIONS.map(|s| of(p, s)));
        LoadBalancerSettings { names, prefer_local: false }
    }

    /// Flag that names the load balancers of the default VPC; also its default.
    pub fn flag(protocol: Protocol, session: Session) -> String {
        let session = match session {
            Session::None => "",
            Session::ClientIp => "-session",
        };
        format!("cluster-{}{session}-loadbalancer", protocol.name())
    }

    /// Name under which users know the load balancers of a VPC: the first part of their names.
    pub fn shared_name(
        &self,
        vpc: &str,
        cluster_router: &str,
        protocol: Protocol,
        session: Session,
    ) -> Text {
        if vpc != cluster_router {
            return vpc_load_balancer(vpc, protocol.name(), session).into();
        }
        let of_protocol = &self.names[protocol as usize];
        of_protocol[session as usize].clone()
    }
}

impl Default for LoadBalancerSettings {
    fn default() -> Self {
        Self::named(str::to_owned)
    }
}
