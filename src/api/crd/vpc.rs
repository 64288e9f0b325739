use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;

use super::{
    condition::Condition,
    pattern::{V4, V4_V6, V6, V6_V4},
    shape::record,
};

record! {
    /// `spec` of a [`Vpc`].
    #[derive(CustomResource)]
    #[kube(
        group = "kubeovn.io", version = "v1", kind = "Vpc", plural = "vpcs", singular = "vpc",
        shortname = "vpc", status = "VpcStatus", schema = "disabled",
        derive = "Default", derive = "PartialEq", attr = "cfg_attr(all(), serde(default))",
        doc = "An isolated network: one OVN logical router and the subnets attached to it.",
        printcolumn(name = "EnableExternal", type_ = "boolean", json_path = ".status.enableExternal"),
        printcolumn(name = "EnableBfd", type_ = "boolean", json_path = ".status.enableBfd"),
        printcolumn(name = "Standby", type_ = "boolean", json_path = ".status.standby"),
        printcolumn(name = "Subnets", type_ = "string", json_path = ".status.subnets"),
        printcolumn(name = "ExtraExternalSubnets", type_ = "string", json_path = ".status.extraExternalSubnets"),
        printcolumn(name = "Namespaces", type_ = "string", json_path = ".spec.namespaces"),
        printcolumn(name = "DefaultSubnet", type_ = "string", json_path = ".status.defaultLogicalSwitch")
    )]
    pub struct VpcSpec {
        always {
            /// Router port that speaks BFD with egress gateways.
            bfd_port: Option<BfdPort> = "bfdPort" [Cel(
                "!self.enabled || (has(self.ip) && self.ip != '')",
                "Port IP must be set when BFD Port is enabled",
            )];
        }
        nonempty {
            /// Subnet that the namespaces of a custom VPC use when no subnet names them.
            default_subnet: String = "defaultSubnet";
            /// Namespaces whose pods belong to this VPC.
            namespaces: Vec<String> = "namespaces";
            /// Static routes of the router.
            static_routes: Vec<StaticRoute> = "staticRoutes";
            /// Routing policies of the router; they come before its routes.
            policy_routes: Vec<PolicyRoute> = "policyRoutes";
            /// Direct links to other VPCs.
            vpc_peerings: Vec<VpcPeering> = "vpcPeerings";
            /// Attach the router to the default external subnet.
            enable_external: bool = "enableExternal";
            /// Further external (VLAN) subnets to attach the router to.
            extra_external_subnets: Vec<String> = "extraExternalSubnets";
            /// Watch the external gateway with BFD.
            enable_bfd: bool = "enableBfd";
        }
    }

    /// A static route of a VPC.
    pub struct StaticRoute {
        always {
            /// Prefix or address that the packet's address is compared with.
            cidr: String = "cidr";
            /// Next hop, one address.
            next_hop_ip: String = "nextHopIP";
            /// Empty, or ecmp_symmetric_reply: answers leave where the request came in.
            ecmp_mode: String = "ecmpMode";
            /// UUID of the OVN BFD row that watches the next hop.
            bfd_id: String = "bfdId";
            /// Route table; empty is the main one.
            route_table: String = "routeTable";
        }
        nonempty {
            /// policyDst (compare the destination, the default) or policySrc.
            policy: String = "policy";
        }
    }

    /// A routing policy of a VPC.
    pub struct PolicyRoute {
        nonempty {
            /// Higher comes first.
            priority: i64 = "priority";
            /// OVN match expression, for example ip4.src == 10.0.1.0/24.
            matching: String = "match";
            /// allow, drop or reroute.
            action: String = "action";
            /// Next hops of reroute, comma separated.
            next_hop_ip: String = "nextHopIP";
        }
    }

    /// A link to another VPC.
    pub struct VpcPeering {
        nonempty {
            /// Name of the other VPC.
            remote_vpc: String = "remoteVpc";
            /// Address with prefix of this end, or an IPv4,IPv6 pair.
            local_connect_ip: String = "localConnectIP";
        }
    }

    /// BFD port of a VPC's router.
    pub struct BfdPort {
        always {
            /// Create the port.
            enabled: bool = "enabled" [Default("false")];
        }
        nonempty {
            /// Address of the port, or an IPv4,IPv6 pair.
            ip: String = "ip" [AnyOf(&[
                Pattern("^$"), Pattern(V4), Pattern(V6), Pattern(V4_V6), Pattern(V6_V4),
            ])];
            /// Nodes that may host the port; when left out, at most three ready nodes by name.
            node_selector: Option<LabelSelector> = "nodeSelector" [
                At("matchExpressions[].key", &[Required]),
                At("matchExpressions[].operator", &[
                    Required,
                    Enum(&["In", "NotIn", "Exists", "DoesNotExist"]),
                ]),
            ];
        }
    }

    /// `status` of a [`Vpc`].
    pub struct VpcStatus {
        always {
            /// This is the default VPC of the cluster.
            default: bool = "default";
            /// Subnet used by default.
            default_logical_switch: String = "defaultLogicalSwitch";
            /// OVN logical router.
            router: String = "router";
            /// The VPC is set up and its subnets may use it.
            standby: bool = "standby";
            /// Applied value of spec.enableExternal.
            enable_external: bool = "enableExternal";
            /// Applied value of spec.enableBfd.
            enable_bfd: bool = "enableBfd";
            /// Subnets of the VPC, sorted.
            subnets: Vec<String> = "subnets";
            /// Applied value of spec.extraExternalSubnets, sorted.
            extra_external_subnets: Vec<String> = "extraExternalSubnets";
            /// VPCs that this one is linked to.
            vpc_peerings: Vec<String> = "vpcPeerings";
            /// OVN load balancer of TCP Services.
            tcp_load_balancer: String = "tcpLoadBalancer";
            /// OVN load balancer of TCP Services with client affinity.
            tcp_session_load_balancer: String = "tcpSessionLoadBalancer";
            /// OVN load balancer of UDP Services.
            udp_load_balancer: String = "udpLoadBalancer";
            /// OVN load balancer of UDP Services with client affinity.
            udp_session_load_balancer: String = "udpSessionLoadBalancer";
            /// OVN load balancer of SCTP Services.
            sctp_load_balancer: String = "sctpLoadBalancer";
            /// OVN load balancer of SCTP Services with client affinity.
            sctp_session_load_balancer: String = "sctpSessionLoadBalancer";
            /// State of the BFD port.
            bfd_port: BfdPortStatus = "bfdPort";
        }
        nonempty {
            /// Conditions of the VPC.
            conditions: Vec<Condition> = "conditions";
            /// The spec that was valid last, as JSON. In force while the spec is not valid.
            last_valid_spec: String = "lastValidSpec";
        }
    }

    /// State of a VPC's BFD port.
    pub struct BfdPortStatus {
        nonempty {
            /// Address of the port.
            ip: String = "ip";
            /// Name of the router port.
            name: String = "name";
            /// Nodes that host the port, best first.
            nodes: Vec<String> = "nodes";
        }
    }
}
