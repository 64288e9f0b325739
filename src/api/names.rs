//! Every name that users and other programs see: annotation and label keys, finalizers, and the
//! names of OVN rows that `kubectl ko nbctl show` prints.
//!
//! Keys follow `<provider>.kubernetes.io/<suffix>`; the default network's provider is `ovn`.
//! Write keys with [`provider_key`] when they exist per provider ([`suffix`]), else take the full
//! constant from [`annotation`] or [`label`].

use crate::net::{Family, port_group_name};

/// API group of the custom resources; every kind has the one version [`VERSION`].
pub const GROUP: &str = "kubeovn.io";
pub const VERSION: &str = "v1";

/// Provider of the default network.
pub const DEFAULT_PROVIDER: &str = "ovn";

/// `external_ids:vendor` of rows made by Kube-OVN.
pub const VENDOR: &str = "kube-ovn";

/// Name of the cluster's leader election Lease.
pub const LEASE: &str = "kube-ovn-controller";

/// Finalizers of kubeovn.io objects.
pub mod finalizer {
    pub const CONTROLLER: &str = "kubeovn.io/kube-ovn-controller";
    /// Of releases before 1.13; swapped for [`CONTROLLER`] when met.
    pub const CONTROLLER_OLD: &str = "kube-ovn-controller";
    pub const OURS: [&str; 2] = [CONTROLLER, CONTROLLER_OLD];
}

/// Suffixes of pod annotations that exist for every provider; join with [`provider_key`].
pub mod suffix {
    pub const ALLOCATED: &str = "allocated";
    pub const ROUTED: &str = "routed";
    pub const IP_ADDRESS: &str = "ip_address";
    pub const MAC_ADDRESS: &str = "mac_address";
    pub const CIDR: &str = "cidr";
    pub const GATEWAY: &str = "gateway";
    pub const IP_POOL: &str = "ip_pool";
    pub const LOGICAL_SWITCH: &str = "logical_switch";
    pub const LOGICAL_ROUTER: &str = "logical_router";
    pub const VLAN_ID: &str = "vlan_id";
    pub const PROVIDER_NETWORK: &str = "provider_network";
    pub const POD_NIC_TYPE: &str = "pod_nic_type";
    pub const PORT_SECURITY: &str = "port_security";
    pub const PORT_VIPS: &str = "port_vips";
    pub const SECURITY_GROUPS: &str = "security_groups";
    pub const LAYER2_FORWARD: &str = "layer2_forward";
    pub const INGRESS_RATE: &str = "ingress_rate";
    pub const EGRESS_RATE: &str = "egress_rate";
    pub const LATENCY: &str = "latency";
    pub const JITTER: &str = "jitter";
    pub const LIMIT: &str = "limit";
    pub const LOSS: &str = "loss";
    pub const MIRROR: &str = "mirror";
    pub const ROUTES: &str = "routes";
    pub const DEFAULT_ROUTE: &str = "default_route";
    pub const VIRTUALMACHINE: &str = "virtualmachine";
    pub const ACTIVATION_STRATEGY: &str = "activation_strategy";
    pub const VF: &str = "vf";
    pub const VF_REPRESENTOR: &str = "vf_representor";

    /// All of them: what a hot-unplugged attachment takes away.
    pub const ALL: [&str; 29] = [
        ALLOCATED,
        ROUTED,
        IP_ADDRESS,
        MAC_ADDRESS,
        CIDR,
        GATEWAY,
        IP_POOL,
        LOGICAL_SWITCH,
        LOGICAL_ROUTER,
        VLAN_ID,
        PROVIDER_NETWORK,
        POD_NIC_TYPE,
        PORT_SECURITY,
        PORT_VIPS,
        SECURITY_GROUPS,
        LAYER2_FORWARD,
        INGRESS_RATE,
        EGRESS_RATE,
        LATENCY,
        JITTER,
        LIMIT,
        LOSS,
        MIRROR,
        ROUTES,
        DEFAULT_ROUTE,
        VIRTUALMACHINE,
        ACTIVATION_STRATEGY,
        VF,
        VF_REPRESENTOR,
    ];
}

/// Suffixes of `<pn>.provider-network.kubernetes.io/`; join with [`provider_network_key`].
pub mod provider_network {
    /// Label of a node, `true`: the bridge of the network is ready.
    pub const READY: &str = "ready";
    /// Label of a node: the bridged NIC. Old annotation: the NIC to bridge.
    pub const INTERFACE: &str = "interface";
    /// Label of a node: MTU of the NIC.
    pub const MTU: &str = "mtu";
    /// Label (and old annotation) of a node, `true`: the network leaves the node out.
    pub const EXCLUDE: &str = "exclude";
    /// Annotation of the node's kube-ovn-cni pod: last error of the bridge setup.
    pub const ERR_MESG: &str = "err_mesg";
}

/// Annotations under the default provider or of other software, full keys.
pub mod annotation {
    // Pods, nodes and namespaces, default network.
    pub const ALLOCATED: &str = "ovn.kubernetes.io/allocated";
    pub const ROUTED: &str = "ovn.kubernetes.io/routed";
    pub const IP_ADDRESS: &str = "ovn.kubernetes.io/ip_address";
    pub const MAC_ADDRESS: &str = "ovn.kubernetes.io/mac_address";
    pub const CIDR: &str = "ovn.kubernetes.io/cidr";
    pub const GATEWAY: &str = "ovn.kubernetes.io/gateway";
    pub const IP_POOL: &str = "ovn.kubernetes.io/ip_pool";
    pub const LOGICAL_SWITCH: &str = "ovn.kubernetes.io/logical_switch";
    pub const LOGICAL_ROUTER: &str = "ovn.kubernetes.io/logical_router";
    pub const INGRESS_RATE: &str = "ovn.kubernetes.io/ingress_rate";
    pub const EGRESS_RATE: &str = "ovn.kubernetes.io/egress_rate";
    pub const ROUTES: &str = "ovn.kubernetes.io/routes";
    // Pods.
    pub const VIP: &str = "ovn.kubernetes.io/vip";
    pub const AAPS: &str = "ovn.kubernetes.io/aaps";
    pub const EIP: &str = "ovn.kubernetes.io/eip";
    pub const SNAT: &str = "ovn.kubernetes.io/snat";
    pub const NORTH_GATEWAY: &str = "ovn.kubernetes.io/north_gateway";
    /// Pods `true|cluster|local`, Subnets the same, Services and IptablesEIPs `true`.
    pub const BGP: &str = "ovn.kubernetes.io/bgp";
    pub const VPC_NAT_GW: &str = "ovn.kubernetes.io/vpc_nat_gw";
    pub const VPC_NAT_GW_INIT: &str = "ovn.kubernetes.io/vpc_nat_gw_init";
    pub const VPC_NAT_GW_CONTAINER_RESTARTED: &str =
        "ovn.kubernetes.io/vpc_nat_gw_container_restarted";
    pub const VPC_CIDRS: &str = "ovn.kubernetes.io/vpc_cidrs";
    /// Pods of a VPC load balancer, and Services: the VPC they belong to.
    pub const VPC: &str = "ovn.kubernetes.io/vpc";
    // Nodes.
    pub const PORT_NAME: &str = "ovn.kubernetes.io/port_name";
    pub const CHASSIS: &str = "ovn.kubernetes.io/chassis";
    pub const TUNNEL_INTERFACE: &str = "ovn.kubernetes.io/tunnel_interface";
    // Namespaces.
    pub const EXCLUDE_IPS: &str = "ovn.kubernetes.io/exclude_ips";
    // Services.
    pub const SWITCH_LB_VIP: &str = "ovn.kubernetes.io/switch_lb_vip";
    pub const ATTACHMENT_PROVIDER: &str = "ovn.kubernetes.io/attachmentprovider";
    pub const SERVICE_EXTERNAL_IP_FROM_SUBNET: &str =
        "ovn.kubernetes.io/service_external_ip_from_subnet";
    // Policies.
    pub const ENABLE_LOG: &str = "ovn.kubernetes.io/enable_log";
    pub const LOG_ACL_ACTIONS: &str = "ovn.kubernetes.io/log_acl_actions";
    /// `standard` or `lax`, as later releases have it.
    pub const NETWORK_POLICY_ENFORCEMENT: &str = "ovn.kubernetes.io/network_policy_enforcement";
    // kubeovn.io objects and workloads made from them.
    pub const VPC_LB: &str = "ovn.kubernetes.io/vpc_lb";
    pub const VPC_EIP: &str = "ovn.kubernetes.io/vpc_eip";
    pub const VPC_NAT: &str = "ovn.kubernetes.io/vpc_nat";
    pub const GENERATE_HASH: &str = "ovn.kubernetes.io/generate-hash";
    // Other software.
    pub const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";
    pub const NETWORK_STATUS: &str = "k8s.v1.cni.cncf.io/network-status";
    pub const RESOURCE_NAME: &str = "k8s.v1.cni.cncf.io/resourceName";
    pub const DEFAULT_NETWORK: &str = "v1.multus-cni.io/default-network";
    /// Marks the target pod of a live migration (the manual's `allow_live_migration` never was).
    pub const MIGRATION_JOB_NAME: &str = "kubevirt.io/migrationJobName";
}

/// Labels, full keys.
pub mod label {
    // kubeovn.io objects.
    pub const SUBNET: &str = "ovn.kubernetes.io/subnet";
    pub const NODE_NAME: &str = "ovn.kubernetes.io/node-name";
    /// IP: `true` = survives its pod. Vip: the port that holds it, "" = free.
    pub const IP_RESERVED: &str = "ovn.kubernetes.io/ip_reserved";
    pub const VPC: &str = "ovn.kubernetes.io/vpc";
    pub const VPC_EXTERNAL: &str = "ovn.kubernetes.io/vpc_external";
    pub const VPC_LB: &str = "ovn.kubernetes.io/vpc_lb";
    pub const VPC_DNS: &str = "ovn.kubernetes.io/vpc-dns";
    pub const QOS: &str = "ovn.kubernetes.io/qos";
    pub const VPC_NAT_GW: &str = "ovn.kubernetes.io/vpc-nat-gw";
    pub const VPC_NAT_GW_NAME: &str = "ovn.kubernetes.io/vpc-nat-gw-name";
    pub const VPC_EGRESS_GATEWAY: &str = "ovn.kubernetes.io/vpc-egress-gateway";
    pub const VPC_DNAT_EPORT: &str = "ovn.kubernetes.io/vpc_dnat_eport";
    pub const EIP_V4_IP: &str = "ovn.kubernetes.io/eip_v4_ip";
    /// A raw IPv6 address is no label value: write [`super::label_address`] of it.
    pub const EIP_V6_IP: &str = "ovn.kubernetes.io/eip_v6_ip";
    pub const OVN_EIP_TYPE: &str = "ovn.kubernetes.io/ovn_eip_type";
    // Nodes.
    pub const EXTERNAL_GW: &str = "ovn.kubernetes.io/external-gw";
    pub const NODE_EXT_GW: &str = "ovn.kubernetes.io/node-ext-gw";
    pub const IC_GW: &str = "ovn.kubernetes.io/ic-gw";
    pub const OVS_DP_TYPE: &str = "ovn.kubernetes.io/ovs_dp_type";
    pub const ROLE: &str = "kube-ovn/role";
    pub const BGP: &str = "ovn.kubernetes.io/bgp";
    // ovn-central and interconnection pods; `true` or `false`.
    pub const NB_LEADER: &str = "ovn-nb-leader";
    pub const SB_LEADER: &str = "ovn-sb-leader";
    pub const NORTHD_LEADER: &str = "ovn-northd-leader";
    pub const IC_NB_LEADER: &str = "ovn-ic-nb-leader";
    pub const IC_SB_LEADER: &str = "ovn-ic-sb-leader";
    // Kubernetes: the Service of an EndpointSlice; a Service that kube-proxy leaves alone.
    pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
    pub const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
    pub const ZONE: &str = "topology.kubernetes.io/zone";
    // Other software.
    pub const MIGRATION_JOB_UID: &str = "kubevirt.io/migrationJobUID";
    pub const APP: &str = "app";
}

/// `<provider>.kubernetes.io/<suffix>`; an empty provider is the default network's.
pub fn provider_key(provider: &str, suffix: &str) -> String {
    let provider = if provider.is_empty() { DEFAULT_PROVIDER } else { provider };
    format!("{provider}.kubernetes.io/{suffix}")
}

/// `<pn>.provider-network.kubernetes.io/<suffix>` (the manual's extra `ovn.` never was).
pub fn provider_network_key(network: &str, suffix: &str) -> String {
    format!("{network}.provider-network.kubernetes.io/{suffix}")
}

/// Name of a pod's port and of its IP object: `<pod>.<ns>`, or `<pod>.<ns>.<provider>` beyond the
/// default network. Pod names may hold dots, so the name cannot be split again; keep the pod's
/// own key beside it.
pub fn port_name(pod: &str, namespace: &str, provider: &str) -> String {
    if provider.is_empty() || provider == DEFAULT_PROVIDER {
        format!("{pod}.{namespace}")
    } else {
        format!("{pod}.{namespace}.{provider}")
    }
}

/// Name of a node's join port and of its IP object.
pub fn node_port(node: &str) -> String {
    format!("node-{node}")
}

/// Name of the underlay-to-overlay port and its IP object.
pub fn u2o_port(vpc: &str, subnet: &str) -> String {
    format!("u2o-interconnection.{vpc}.{subnet}")
}

/// Name of the multicast querier port and its IP object.
pub fn mcast_querier_port(subnet: &str) -> String {
    format!("mcast-querier.{subnet}")
}

/// Router end of the pair that joins a router and a switch: `<lr>-<subnet>`.
pub fn router_port(router: &str, subnet: &str) -> String {
    format!("{router}-{subnet}")
}

/// Switch end of the pair: `<subnet>-<lr>`.
pub fn switch_port(router: &str, subnet: &str) -> String {
    format!("{subnet}-{router}")
}

/// Local end of a VPC peering: `<local>-<remote>`; the other end is the mirror image.
pub fn peer_port(local: &str, remote: &str) -> String {
    format!("{local}-{remote}")
}

pub fn localnet_port(subnet: &str) -> String {
    format!("localnet.{subnet}")
}

/// Virtual port of an address in `spec.vips`.
pub fn virtual_port(subnet: &str, ip: std::net::IpAddr) -> String {
    format!("{subnet}-vip-{ip}")
}

/// Router port and HA chassis group of a VPC's BFD endpoint.
pub fn bfd_port(vpc: &str) -> String {
    format!("bfd@{vpc}")
}

pub fn gateway_chassis(router_port: &str, chassis: &str) -> String {
    format!("{router_port}-{chassis}")
}

/// Port group of the pods of the default VPC on one node.
pub fn node_port_group(node: &str) -> String {
    port_group_name(&["node", node])
}

/// Port group of the pods of distributed subnets on one node. Upstream has one per subnet and node,
/// `<subnet>.<node>`: 200 subnets on 1,000 nodes made 200,000. No object of Kubernetes has an
/// underscore in its name, so no other group can be called like this.
pub fn distributed_port_group(node: &str) -> String {
    port_group_name(&["distributed_gw", node])
}

/// Port group of the pods of an underlay subnet on one node.
pub fn subnet_node_port_group(subnet: &str, node: &str) -> String {
    port_group_name(&[subnet, node])
}

/// Address set of the InternalIPs of all nodes.
pub fn node_address_set(family: Family) -> &'static str {
    match family {
        Family::V4 => "node_addresses_ip4",
        Family::V6 => "node_addresses_ip6",
    }
}

/// Port group of a NetworkPolicy. OVN wants a letter first, so others get `np` put before them.
pub fn policy_port_group(policy: &str, namespace: &str) -> String {
    let name = port_group_name(&[policy, namespace]);
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { format!("np{name}") }
}

pub fn security_group_port_group(group: &str) -> String {
    format!("ovn.sg.{}", group.replace('-', "."))
}

/// Security group that drops everything.
pub const DENY_ALL_GROUP: &str = "kubeovn_deny_all";
/// Security group that ports of custom VPCs may name to be reachable by default.
pub const DEFAULT_GROUP: &str = "default-securitygroup";

/// Address set of an underlay subnet's U2O address.
pub fn u2o_exclude_set(subnet: &str, family: Family) -> String {
    format!("{}.u2o_exclude_ip.ip{}", subnet.replace('-', "."), family.digit())
}

/// Address set of the overlay CIDRs of a VPC.
pub fn u2o_overlay_set(vpc: &str, family: Family) -> String {
    format!("{}.u2o_overlay_cidrs.ip{}", vpc.replace('-', "."), family.digit())
}

/// Load balancer of a custom VPC; `protocol` is `tcp`, `udp` or `sctp`. Those of the default VPC
/// are named by flags.
pub fn vpc_load_balancer(vpc: &str, protocol: &str, session: Session) -> String {
    let kind = match session {
        Session::None => "load",
        Session::ClientIp => "sess-load",
    };
    format!("vpc-{vpc}-{protocol}-{kind}")
}

/// Service session affinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Session {
    None,
    ClientIp,
}

/// An address as a label value: IPv6 colons are not allowed there and become dashes; a dash at
/// either end (`::1`, `fe80::`) is not either and gets a zero.
pub fn label_address(ip: std::net::IpAddr) -> String {
    let mut text = ip.to_string().replace(':', "-");
    if text.starts_with('-') {
        text.insert(0, '0');
    }
    if text.ends_with('-') {
        text.push('0');
    }
    text
}
