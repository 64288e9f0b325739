//! Validated objects: what the rest of the program sees of Kubernetes.
//!
//! `parse_*` functions turn a raw object into one of these or into [`Invalid`] values; an invalid
//! object counts as absent and is reported on the object. Every field here is used by somebody:
//! equal after trimming means "no event", so our own status writes cannot loop.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::net::{Cidr, DualStack, IpRange, Mac};

use super::{SubnetAcl, policy};

pub type Text = Arc<str>;
pub type Map = BTreeMap<Text, Text>;

/// The tables of the store: Kubernetes kinds, OVN facts and results of the state machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Settings,
    Vpc,
    Subnet,
    Ip,
    IpPool,
    Node,
    Namespace,
    Pod,
    SecurityGroup,
    Chassis,
    Gateway,
    NetworkPolicy,
    ExternalGateway,
    Service,
    EndpointSlice,
    ServiceCidr,
    StatefulSet,
    VirtualMachine,
    VirtualMachineInstance,
    Attachment,
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
}

impl Kind {
    pub const ALL: &[Kind] = &[
        Kind::Settings,
        Kind::Vpc,
        Kind::Subnet,
        Kind::Ip,
        Kind::IpPool,
        Kind::Node,
        Kind::Namespace,
        Kind::Pod,
        Kind::SecurityGroup,
        Kind::Chassis,
        Kind::Gateway,
        Kind::NetworkPolicy,
        Kind::ExternalGateway,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::ServiceCidr,
        Kind::StatefulSet,
        Kind::VirtualMachine,
        Kind::VirtualMachineInstance,
        Kind::Attachment,
        Kind::AdminNetworkPolicy,
        Kind::BaselineAdminNetworkPolicy,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Settings => "Settings",
            Kind::Vpc => "Vpc",
            Kind::Subnet => "Subnet",
            Kind::Ip => "IP",
            Kind::IpPool => "IPPool",
            Kind::Node => "Node",
            Kind::Namespace => "Namespace",
            Kind::Pod => "Pod",
            Kind::SecurityGroup => "SecurityGroup",
            Kind::Chassis => "Chassis",
            Kind::Gateway => "Gateway",
            Kind::NetworkPolicy => "NetworkPolicy",
            Kind::ExternalGateway => "ConfigMap",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::ServiceCidr => "ServiceCIDR",
            Kind::StatefulSet => "StatefulSet",
            Kind::VirtualMachine => "VirtualMachine",
            Kind::VirtualMachineInstance => "VirtualMachineInstance",
            Kind::Attachment => "NetworkAttachmentDefinition",
            Kind::AdminNetworkPolicy => "AdminNetworkPolicy",
            Kind::BaselineAdminNetworkPolicy => "BaselineAdminNetworkPolicy",
        }
    }
}

/// A value that lives in the store: immutable, comparable, with a key and index buckets.
pub trait Object: std::any::Any + Send + Sync + PartialEq + std::fmt::Debug {
    const KIND: Kind;
    /// `name`, or `namespace/name`.
    fn key(&self) -> Text;
    /// Secondary index entries `(index, value)` under which the object can be listed.
    fn buckets(&self) -> Vec<(Index, Text)> {
        Vec::new()
    }
    /// Values `(index, bucket, value)` that the object adds to a bucket. Who lists them sees each
    /// value once, however many objects have it, and re-runs only when one comes or goes.
    fn facets(&self) -> Vec<(Index, Text, Text)> {
        Vec::new()
    }
}

/// Secondary indexes. Listing a bucket is recorded by the view, so a feature re-runs when an
/// object enters or leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Index {
    /// Every object of the kind (bucket value "").
    All,
    PodsByNode,
    PodsByNamespace,
    IpsBySubnet,
    IpsByPod,
    /// Of StatefulSet pods, by `namespace/set`.
    IpsByStatefulSet,
    /// By `namespace/name` of the virtual machine instance that owns the pod.
    PodsByMachine,
    /// By each address in an annotation `port_vips`.
    PodsByVip,
    SubnetsByProvider,
    SubnetsByVpc,
    /// OVN subnets of a VPC that are not being deleted.
    ActiveSubnetsByVpc,
    /// Subnets marked as the default of their VPC.
    DefaultSubnetsByVpc,
    /// Underlay subnets with u2oInterconnection.
    U2oSubnetsByVpc,
    /// By each entry of `spec.namespaces`.
    SubnetsByNamespace,
    /// Subnets with namespaceSelectors (bucket value "").
    SubnetsWithSelectors,
    /// By name with dots for dashes, as in port group names.
    SubnetsByDottedName,
    /// By [`Subnet::ground`] and the block that a range is at home in, see [`Cidr::blocks`].
    SubnetsAtHome,
    /// By ground and every block around the home of a range.
    SubnetsInside,
    /// By `policyRoutingTableID`.
    SubnetsByEgressTable,
    VpcsByNamespace,
    /// To see whether one exists, and no more.
    VpcsByName,
    NodesByDottedName,
    /// By every block around an InternalIP, see [`Cidr::blocks`].
    NodesInside,
    /// By name: nodes with a userspace datapath.
    UserspaceNodes,
    /// Nodes labelled external-gw=true (bucket value "").
    ExternalGatewayNodes,
    PoolsBySubnet,
    PoolsByNamespace,
    /// By name with dots for dashes, as in port group names.
    SecurityGroupsByDottedName,
    ChassisByHostname,
    /// Policies by what a pod must have to match one of their selectors, see
    /// [`policy::Selection::hints`].
    Selections,
    /// NetworkPolicies by the name of their port group.
    PoliciesByGroupName,
    /// Administrators' policies by the name of their port group.
    AdminPoliciesByGroupName,
    AdminPoliciesByPriority,
    /// Administrators' policies with node peers (bucket value "").
    AdminPoliciesOfNodes,
    /// Facet: "", while there is any policy of the kind (bucket value "").
    Presence,
    /// Facet: families (`4`, `6`) of all subnets (bucket value "").
    SubnetFamilies,
    /// Facet: `<vpc> <subnet> <range>` of all OVN subnets (bucket value "").
    SubnetRanges,
    /// Facet: "", while a subnet has no load balancers (bucket value "").
    SubnetsWithoutBalancing,
    /// Facet: subnets in which pods of a namespace have addresses.
    SubnetsOfNamespace,
    /// Facet: numbers that pods give to a port name, by `<protocol>/<name>` and
    /// `<namespace> <protocol>/<name>`.
    PortNumbers,
    /// By address, port and protocol, see [`front`](super::front).
    ServicesByFront,
    SlicesByService,
    /// By namespace and the first label of the selector, see
    /// [`service_bucket`](super::service_bucket).
    ServicesBySelector,
    /// Facet: ranges of all ServiceCIDRs (bucket value "").
    ServiceRanges,
}

/// Why (part of) an object is refused: field, value and remedy go to a condition and an Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Event and condition reason (`ValidateLogicalSwitchFailed`, `ValidatePodNetworkFailed`).
    pub reason: &'static str,
    /// Names the field, its value and the remedy.
    pub message: String,
}

/// Flags of the controller that features read; one object, key "".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub cluster_router: Text,
    pub default_subnet: Text,
    pub node_switch: Text,
    pub service_cidrs: DualStack<Cidr>,
    /// Where pods find the API server, if that is not the first address of the Service range.
    pub api_server: Option<IpAddr>,
    pub pod_nic_type: Text,
    pub enable_lb: bool,
    pub enable_np: bool,
    pub load_balancers: super::LoadBalancerSettings,
    pub enable_anp: bool,
    pub keep_vm_ip: bool,
    pub node_local_dns: Vec<IpAddr>,
    pub network_type: Text,
    pub enable_ipsec: bool,
    pub external: super::ExternalSettings,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vpc {
    pub name: Text,
    pub namespaces: Vec<Text>,
    pub default_subnet: Option<Text>,
    pub static_routes: Vec<StaticRoute>,
    pub policy_routes: Vec<PolicyRoute>,
    /// Label `ovn.kubernetes.io/vpc_external=true`: the router is not ours.
    pub external: bool,
    /// Findings about the spec; the routes they concern are left out.
    pub invalid: Vec<Invalid>,
    pub deleting: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticRoute {
    /// `true` for `policySrc`.
    pub by_source: bool,
    pub prefix: Cidr,
    pub next_hop: IpAddr,
    pub ecmp_symmetric_reply: bool,
    pub bfd_id: Option<Text>,
    /// "" is the main table.
    pub table: Text,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRoute {
    pub priority: i32,
    pub matching: Text,
    pub action: PolicyAction,
    pub next_hops: Vec<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyAction {
    Allow,
    Drop,
    Reroute,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatewayType {
    Distributed,
    Centralized,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedGateway {
    pub node: Text,
    pub egress: Option<IpAddr>,
}

/// A Subnet after defaulting and validation. `cidrs` have their host bits cleared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subnet {
    pub name: Text,
    pub uid: Text,
    pub vpc: Text,
    pub provider: Text,
    pub default: bool,
    pub cidrs: DualStack<Cidr>,
    pub gateways: DualStack<IpAddr>,
    /// Always covers the gateways.
    pub excludes: Vec<IpRange>,
    pub namespaces: Vec<Text>,
    pub namespace_selectors: Vec<Selector>,
    /// `None` in custom VPCs and on the join subnet.
    pub gateway_type: Option<GatewayType>,
    pub gateway_nodes: Vec<NamedGateway>,
    pub enable_ecmp: bool,
    pub nat_outgoing: bool,
    /// Identities of the applied NAT policy rules; their text is in the status.
    pub nat_rules: Vec<Text>,
    pub private: bool,
    pub allow_subnets: Vec<Cidr>,
    pub acls: Vec<SubnetAcl>,
    pub allow_ew_traffic: bool,
    pub vlan: Option<Text>,
    pub logical_gateway: bool,
    pub u2o_interconnection: bool,
    pub enable_lb: Option<bool>,
    pub disable_gateway_check: bool,
    pub mtu: Option<u32>,
    pub route_table: Text,
    pub multicast_snoop: bool,
    /// `None` without enableDHCP.
    pub dhcp: Option<Dhcp>,
    /// Router advertisement options; `None` without enableIPv6RA.
    pub router_advertisement: Option<Map>,
    /// `externalEgressGateway`: the subnet leaves the cluster through these.
    pub policy_routing: Option<PolicyRouting>,
    /// `spec.vips`: addresses of virtual ports.
    pub vips: Vec<Text>,
    /// creationTimestamp in seconds; of two subnets in conflict the younger one loses.
    pub created: i64,
    pub deleting: bool,
    /// What its range is to become; the ranges above stay in force until no address that the next
    /// one lacks is held.
    pub renumbering: Option<Renumbering>,
}

/// The next range of a subnet whose `cidrBlock` was changed while addresses are in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renumbering {
    pub cidrs: DualStack<Cidr>,
    pub gateways: DualStack<IpAddr>,
    pub excludes: Vec<IpRange>,
}

/// DHCP options as given, by family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dhcp {
    pub v4: Map,
    pub v6: Map,
}

/// Policy routing on the gateway nodes towards gateways outside the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRouting {
    /// At most one per family.
    pub gateways: Vec<IpAddr>,
    /// Priority of the ip rule; 0 when not given.
    pub priority: u32,
    /// Routing table; 0 when not given.
    pub table: u32,
}

impl Subnet {
    /// Ports of this subnet are OVN ports (provider empty, `ovn`, or `<nad>.<ns>.ovn`).
    pub fn is_ovn(&self) -> bool {
        is_ovn_provider(&self.provider)
    }

    /// Whether the addresses are inside, now and when the range has changed.
    pub fn keeps(&self, addresses: &DualStack<IpAddr>) -> bool {
        let next = self.renumbering.as_ref();
        addresses.iter().all(|(family, ip)| {
            let stays = |next: &Renumbering| {
                next.cidrs.contains(*ip) && next.gateways.get(family) != Some(ip)
            };
            self.cidrs.contains(*ip) && next.is_none_or(stays)
        })
    }

    /// Its range, as the next one of the subnet that it is an edit of.
    pub fn as_renumbering(&self) -> Renumbering {
        let (cidrs, gateways) = (self.cidrs, self.gateways);
        Renumbering { cidrs, gateways, excludes: self.excludes.clone() }
    }

    /// Where ranges must not overlap: the VPC and vlan, or the provider of an IPAM-only subnet.
    pub fn ground(&self) -> String {
        if self.is_ovn() {
            format!("{}/{}", self.vpc, self.vlan.as_deref().unwrap_or_default())
        } else {
            self.provider.to_string()
        }
    }

    /// Subnets among which every one that overlaps this one is found.
    pub fn neighbourhood(&self) -> impl Iterator<Item = (Index, String)> {
        let ground = self.ground();
        let mut all = Vec::new();
        for (_, cidr) in self.cidrs.iter() {
            let blocks = cidr.blocks();
            all.extend(blocks.iter().map(|b| (Index::SubnetsAtHome, format!("{ground} {b}"))));
            let home = blocks.last().map(|b| (Index::SubnetsInside, format!("{ground} {b}")));
            all.extend(home);
        }
        all.into_iter()
    }

    fn index_entries(&self) -> Vec<(Index, Text)> {
        let mut all = vec![
            (Index::SubnetsByVpc, self.vpc.clone()),
            (Index::SubnetsByDottedName, dotted(&self.name).into()),
            (Index::SubnetsByProvider, self.provider.clone()),
        ];
        if self.is_ovn() && !self.deleting {
            all.push((Index::ActiveSubnetsByVpc, self.vpc.clone()));
        }
        if self.default {
            all.push((Index::DefaultSubnetsByVpc, self.vpc.clone()));
        }
        if self.vlan.is_some() && self.u2o_interconnection {
            all.push((Index::U2oSubnetsByVpc, self.vpc.clone()));
        }
        all.extend(self.namespaces.iter().map(|n| (Index::SubnetsByNamespace, n.clone())));
        if !self.namespace_selectors.is_empty() {
            all.push((Index::SubnetsWithSelectors, "".into()));
        }
        if let Some(routing) = &self.policy_routing {
            all.push((Index::SubnetsByEgressTable, routing.table.to_string().into()));
        }
        let ground = self.ground();
        for (_, cidr) in self.cidrs.iter() {
            let mut blocks = cidr.blocks();
            let home = blocks.pop().map(|b| (Index::SubnetsAtHome, format!("{ground} {b}").into()));
            all.extend(home);
            let around = blocks.iter().map(|b| (Index::SubnetsInside, format!("{ground} {b}")));
            all.extend(around.map(|(index, value)| (index, value.into())));
        }
        all
    }

    fn facet_entries(&self) -> Vec<(Index, Text, Text)> {
        let everywhere = |index, value: String| (index, "".into(), Text::from(value));
        let families = self.cidrs.families();
        let mut all: Vec<_> =
            families.map(|f| everywhere(Index::SubnetFamilies, f.digit().to_string())).collect();
        if self.is_ovn() {
            let range = |cidr: &Cidr| format!("{} {} {}", self.vpc, self.name, cidr.network());
            let ranges = self.cidrs.iter().map(|(_, cidr)| range(cidr));
            all.extend(ranges.map(|range| everywhere(Index::SubnetRanges, range)));
            if self.enable_lb == Some(false) {
                all.push(everywhere(Index::SubnetsWithoutBalancing, String::new()));
            }
        }
        all
    }

    /// Traffic is routed by OVN: no vlan, or a logical gateway on the vlan.
    pub fn is_overlay(&self) -> bool {
        self.vlan.is_none() || self.logical_gateway
    }
}

/// Dashes as dots: OVN allows no dash in names of port groups and address sets.
pub fn dotted(name: &str) -> String {
    name.replace('-', ".")
}

/// Provider rule of the manual: empty, `ovn`, or three dot fields of which the last is `ovn`.
pub fn is_ovn_provider(provider: &str) -> bool {
    let fields: Vec<&str> = provider.split('.').collect();
    provider.is_empty() || provider == "ovn" || (fields.len() == 3 && fields[2] == "ovn")
}

/// A label selector, reduced to what Kubernetes evaluates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    pub labels: Map,
    pub expressions: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    pub key: Text,
    pub operator: Operator,
    pub values: Vec<Text>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Selector {
    pub fn matches(&self, labels: &Map) -> bool {
        self.labels.iter().all(|(k, v)| labels.get(k) == Some(v))
            && self.expressions.iter().all(|r| {
                let value = labels.get(&r.key);
                let listed = value.is_some_and(|v| r.values.contains(v));
                match r.operator {
                    Operator::In => listed,
                    Operator::NotIn => !listed,
                    Operator::Exists => value.is_some(),
                    Operator::DoesNotExist => value.is_none(),
                }
            })
    }
}

/// An IP CR: one recorded allocation, the only source of addresses for ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ip {
    /// Name of the port: `<pod>.<ns>[.<provider>]`, `node-<node>` ...
    pub name: Text,
    pub pod_name: Text,
    pub namespace: Text,
    pub subnet: Text,
    pub node: Text,
    pub addresses: DualStack<IpAddr>,
    pub mac: Option<Mac>,
    /// `""`, `StatefulSet`, `VirtualMachine`.
    pub pod_type: Text,
    pub reserved: bool,
    /// The allocator has filled and taken it over. Until then it is a user's request.
    pub managed: bool,
    pub deleting: bool,
}

impl Ip {
    /// The set of a StatefulSet pod: its name up to the last dash.
    pub fn stateful_set(&self) -> Option<&str> {
        let set = self.pod_name.rsplit_once('-').map(|(set, _)| set);
        set.filter(|_| &*self.pod_type == "StatefulSet")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpPool {
    pub name: Text,
    pub subnet: Text,
    pub namespaces: Vec<Text>,
    pub ranges: Vec<IpRange>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: Text,
    pub uid: Text,
    pub labels: Map,
    /// Annotations of ours only.
    pub annotations: Map,
    pub internal_ips: DualStack<IpAddr>,
    pub ready: bool,
    /// Condition OpenvSwitchDatapath of the agent: packets are switched in user space.
    pub userspace: bool,
    /// creationTimestamp in seconds.
    pub created: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    pub name: Text,
    pub labels: Map,
    /// Annotations of ours only.
    pub annotations: Map,
    pub deleting: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodOwner {
    pub api_version: Text,
    pub kind: Text,
    pub name: Text,
    pub uid: Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodLife {
    /// Runs or will run.
    Alive,
    /// deletionTimestamp is set; the containers may still use the network.
    Terminating,
    /// Succeeded, Failed for good or evicted: the network is no longer in use.
    Ended,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub namespace: Text,
    pub name: Text,
    pub uid: Text,
    pub node: Option<Text>,
    pub host_network: bool,
    pub life: PodLife,
    pub labels: Map,
    /// Annotations of ours only (`<provider>.kubernetes.io/...`, multus, kubevirt).
    pub annotations: Map,
    pub owner: Option<PodOwner>,
    /// Container ports that have a name.
    pub ports: Vec<policy::NamedPort>,
    /// Findings about the annotations; the pod gets no network while there are any.
    pub invalid: Vec<Invalid>,
}

impl Pod {
    /// The KubeVirt virtual machine (instance) that runs in the pod.
    pub fn machine(&self) -> Option<&Text> {
        let owner = self.owner.as_ref()?;
        let machine = &*owner.kind == "VirtualMachineInstance"
            && owner.api_version.starts_with("kubevirt.io");
        machine.then_some(&owner.name)
    }

    /// The StatefulSet that the pod belongs to.
    pub fn stateful_set(&self) -> Option<&Text> {
        let owner = self.owner.as_ref()?;
        let set = &*owner.kind == "StatefulSet" && owner.api_version.starts_with("apps/");
        (set && self.name.starts_with(&*owner.name)).then_some(&owner.name)
    }

    pub fn annotation(&self, provider: &str, suffix: &str) -> Option<&Text> {
        let provider = if provider.is_empty() { "ovn" } else { provider };
        self.annotations.get(format!("{provider}.kubernetes.io/{suffix}").as_str())
    }

    /// Annotation `port_vips`: further addresses of a port.
    pub fn port_vips(&self, provider: &str) -> impl Iterator<Item = &str> {
        let list = self.annotation(provider, super::names::suffix::PORT_VIPS);
        let list = list.map_or("", |list| list);
        list.split(',').map(str::trim).filter(|vip| !vip.is_empty())
    }

    /// Addresses in annotations `port_vips` of all providers.
    fn vips(&self) -> impl Iterator<Item = IpAddr> {
        let wanted = |key: &&Text| key.ends_with(super::names::suffix::PORT_VIPS);
        let lists = self.annotations.iter().filter(move |(key, _)| wanted(key));
        lists.flat_map(|(_, list)| list.split(',')).filter_map(|text| text.trim().parse().ok())
    }
}

/// One row of SB `Chassis`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chassis {
    /// system-id.
    pub name: Text,
    pub hostname: Text,
}

/// The sticky choice of a centralized gateway, made by a state machine, read by features.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    pub subnet: Text,
    /// One node (active-backup) or all ready ones (ECMP).
    pub active: Vec<Text>,
}

macro_rules! object {
    ($type:ident, $kind:expr, |$s:ident| $key:expr, $buckets:expr $(, $facets:expr)?) => {
        impl Object for $type {
            const KIND: Kind = $kind;
            fn key(&self) -> Text {
                let $s = self;
                let _ = $s;
                $key
            }
            fn buckets(&self) -> Vec<(Index, Text)> {
                let $s = self;
                let _ = $s;
                $buckets
            }
            $(fn facets(&self) -> Vec<(Index, Text, Text)> {
                let $s = self;
                $facets
            })?
        }
    };
}

object!(Settings, Kind::Settings, |_s| "".into(), vec![]);
object!(Vpc, Kind::Vpc, |s| s.name.clone(), {
    let bound = s.namespaces.iter().map(|n| (Index::VpcsByNamespace, n.clone()));
    bound.chain([(Index::VpcsByName, s.name.clone())]).collect()
});
object!(Subnet, Kind::Subnet, |s| s.name.clone(), s.index_entries(), s.facet_entries());
object!(
    Ip,
    Kind::Ip,
    |s| s.name.clone(),
    {
        let mut buckets = vec![
            (Index::IpsBySubnet, s.subnet.clone()),
            (Index::IpsByPod, format!("{}/{}", s.namespace, s.pod_name).into()),
        ];
        if let Some(set) = s.stateful_set() {
            buckets.push((Index::IpsByStatefulSet, format!("{}/{set}", s.namespace).into()));
        }
        buckets
    },
    vec![(Index::SubnetsOfNamespace, s.namespace.clone(), s.subnet.clone())]
);
object!(IpPool, Kind::IpPool, |s| s.name.clone(), {
    let mut buckets = vec![(Index::PoolsBySubnet, s.subnet.clone())];
    buckets.extend(s.namespaces.iter().map(|n| (Index::PoolsByNamespace, n.clone())));
    buckets
});
object!(Node, Kind::Node, |s| s.name.clone(), {
    let mut buckets = vec![(Index::NodesByDottedName, dotted(&s.name).into())];
    let blocks = s.internal_ips.iter().flat_map(|(_, ip)| Cidr::host(*ip).blocks());
    buckets.extend(blocks.map(|block| (Index::NodesInside, block.to_string().into())));
    if s.userspace {
        buckets.push((Index::UserspaceNodes, s.name.clone()));
    }
    if s.labels.get(super::names::label::EXTERNAL_GW).is_some_and(|v| &**v == "true") {
        buckets.push((Index::ExternalGatewayNodes, "".into()));
    }
    buckets
});
object!(Namespace, Kind::Namespace, |s| s.name.clone(), vec![]);
object!(
    Pod,
    Kind::Pod,
    |s| format!("{}/{}", s.namespace, s.name).into(),
    {
        let mut buckets = vec![(Index::PodsByNamespace, s.namespace.clone())];
        if let Some(node) = &s.node {
            buckets.push((Index::PodsByNode, node.clone()));
        }
        if let Some(machine) = s.machine() {
            buckets.push((Index::PodsByMachine, format!("{}/{machine}", s.namespace).into()));
        }
        buckets.extend(s.vips().map(|vip| (Index::PodsByVip, vip.to_string().into())));
        buckets
    },
    policy::port_facets(s)
);
object!(
    Chassis,
    Kind::Chassis,
    |s| s.name.clone(),
    vec![(Index::ChassisByHostname, s.hostname.clone())]
);
object!(Gateway, Kind::Gateway, |s| s.subnet.clone(), vec![]);
