use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;

use super::{
    condition::Condition,
    shape::{Count, record},
};

record! {
    /// `spec` of a [`Subnet`].
    #[derive(CustomResource)]
    #[kube(
        group = "kubeovn.io", version = "v1", kind = "Subnet", plural = "subnets",
        singular = "subnet", shortname = "subnet", status = "SubnetStatus", schema = "disabled",
        derive = "Default", derive = "PartialEq", attr = "cfg_attr(all(), serde(default))",
        doc = "A range of addresses for pods, with its own OVN logical switch or only address management.",
        printcolumn(name = "Provider", type_ = "string", json_path = ".spec.provider"),
        printcolumn(name = "Vpc", type_ = "string", json_path = ".spec.vpc"),
        printcolumn(name = "Vlan", type_ = "string", json_path = ".spec.vlan"),
        printcolumn(name = "Protocol", type_ = "string", json_path = ".spec.protocol"),
        printcolumn(name = "CIDR", type_ = "string", json_path = ".spec.cidrBlock"),
        printcolumn(name = "Private", type_ = "boolean", json_path = ".spec.private"),
        printcolumn(name = "NAT", type_ = "boolean", json_path = ".spec.natOutgoing"),
        printcolumn(name = "Default", type_ = "boolean", json_path = ".spec.default"),
        printcolumn(name = "GatewayType", type_ = "string", json_path = ".spec.gatewayType"),
        printcolumn(name = "V4Used", type_ = "number", json_path = ".status.v4usingIPs"),
        printcolumn(name = "V4Available", type_ = "number", json_path = ".status.v4availableIPs"),
        printcolumn(name = "V6Used", type_ = "number", json_path = ".status.v6usingIPs"),
        printcolumn(name = "V6Available", type_ = "number", json_path = ".status.v6availableIPs"),
        printcolumn(name = "ExcludeIPs", type_ = "string", json_path = ".spec.excludeIps"),
        printcolumn(name = "U2OInterconnectionIP", type_ = "string", json_path = ".status.u2oInterconnectionIP")
    )]
    pub struct SubnetSpec {
        always {
            /// Default subnet of its VPC. In the default VPC only the configured one can be.
            default: bool = "default";
            /// Address range: one CIDR, or an IPv4,IPv6 pair. A new range that lacks addresses in use comes
            /// into force when they are released.
            cidr_block: String = "cidrBlock";
            /// Gateway address, or a pair. Default: first address of each range.
            gateway: String = "gateway";
            /// Gateway nodes of a centralized subnet, comma separated; each may be node:egressIP.
            gateway_node: String = "gatewayNode";
            /// Replace the source address of traffic that leaves the cluster.
            nat_outgoing: bool = "natOutgoing";
            /// Refuse traffic from other subnets, except those in allowSubnets.
            private: bool = "private";
            /// Options of underlay to overlay connection.
            u2o_features: U2oFeatures = "u2oFeatures";
        }
        nonempty {
            /// VPC of the subnet. Cannot change. Default: the default VPC.
            vpc: String = "vpc";
            /// IPv4, IPv6 or Dual; always derived from cidrBlock.
            protocol: String = "protocol" [Enum(&["IPv4", "IPv6", "Dual"])];
            /// Namespaces whose pods use the subnet.
            namespaces: Vec<String> = "namespaces";
            /// Namespaces whose pods use the subnet, by label.
            namespace_selectors: Vec<LabelSelector> = "namespaceSelectors";
            /// Addresses not given to pods unless asked for: single ones or ranges a..b. The gateway
            /// is added.
            exclude_ips: Vec<String> = "excludeIps";
            /// ovn (default), <nad>.<namespace>.ovn for further networks of OVN, or
            /// <nad>.<namespace> for address management only.
            provider: String = "provider";
            /// distributed (default in the default VPC) or centralized.
            gateway_type: String = "gatewayType";
            /// Which traffic is translated, in order, when natOutgoing is on.
            nat_outgoing_policy_rules: Vec<NatRule> = "natOutgoingPolicyRules";
            /// External gateway addresses for policy routing, at most two.
            external_egress_gateway: String = "externalEgressGateway";
            /// Priority of the ip rule towards the external gateway.
            policy_routing_priority: i64 = "policyRoutingPriority" [Min(1), Max(32765)];
            /// Routing table towards the external gateway; not those of the system.
            policy_routing_table_id: i64 = "policyRoutingTableID" [
                Min(1), Max(2147483647), Not("[252, 253, 254, 255]"),
            ];
            /// MTU of pod interfaces, in bytes.
            mtu: i64 = "mtu" [Min(68), Max(65535)];
            /// CIDRs that may reach a private subnet.
            allow_subnets: Vec<String> = "allowSubnets";
            /// Vlan of the subnet, which makes it an underlay subnet. Cannot change.
            vlan: String = "vlan";
            /// Addresses of virtual ports: pods that list one in the annotation port_vips take turns at it.
            vips: Vec<String> = "vips";
            /// Let OVN be the gateway of an underlay subnet.
            logical_gateway: bool = "logicalGateway";
            /// Start pods although the gateway does not answer.
            disable_gateway_check: bool = "disableGatewayCheck";
            /// Leave the subnet out of the route exchange between clusters.
            disable_inter_connection: bool = "disableInterConnection";
            /// Answer DHCP on the subnet.
            enable_dhcp: bool = "enableDHCP";
            /// DHCPv4 options as key=value, comma separated; several values as {a;b}.
            dhcp_v4_options: String = "dhcpV4Options";
            /// DHCPv6 options as key=value, comma separated.
            dhcp_v6_options: String = "dhcpV6Options";
            /// Send IPv6 router advertisements.
            enable_ipv6_ra: bool = "enableIPv6RA";
            /// Router advertisement options as key=value, comma separated.
            ipv6_ra_configs: String = "ipv6RAConfigs";
            /// Access rules of the logical switch.
            acls: Vec<Acl> = "acls";
            /// Permit traffic inside the subnet when acls are given.
            allow_ew_traffic: bool = "allowEWTraffic";
            /// Connect an underlay subnet with the overlay subnets of its VPC.
            u2o_interconnection: bool = "u2oInterconnection";
            /// Address of that connection; chosen when empty.
            u2o_interconnection_ip: String = "u2oInterconnectionIP";
            /// Attach the load balancers of Services. Default: the controller's flag.
            enable_lb: Option<bool> = "enableLb";
            /// Use all gateway nodes of a centralized subnet at once.
            enable_ecmp: bool = "enableEcmp";
            /// Forward multicast only to members (IGMP and MLD snooping).
            enable_multicast_snoop: bool = "enableMulticastSnoop";
            /// Let addresses of LoadBalancer Services come from this subnet.
            enable_external_lb_address: bool = "enableExternalLBAddress";
            /// Route table of the router port.
            route_table: String = "routeTable";
        }
    }

    /// One rule of source translation.
    pub struct NatRule {
        always {
            /// Traffic that the rule is for.
            matching: NatMatch = "match";
            /// nat or forward.
            action: String = "action" [Enum(&["nat", "forward"])];
        }
    }

    /// Traffic of a translation rule.
    pub struct NatMatch {
        nonempty {
            /// Source addresses or CIDRs of one family, comma separated.
            src_ips: String = "srcIPs";
            /// Destination addresses or CIDRs of one family, comma separated.
            dst_ips: String = "dstIPs";
        }
    }

    /// Options of underlay to overlay connection.
    pub struct U2oFeatures {
        nonempty {
            /// Route only overlay ranges through the connection.
            overlay_only_routing: bool = "overlayOnlyRouting";
        }
    }

    /// An access rule of a logical switch.
    pub struct Acl {
        nonempty {
            /// from-lport (leaving a pod) or to-lport (towards a pod).
            direction: String = "direction" [Enum(&["from-lport", "to-lport"])];
            /// Higher comes first.
            priority: i64 = "priority" [Min(0), Max(32767)];
            /// OVN match expression.
            matching: String = "match";
            /// What happens to matching packets.
            action: String = "action" [Enum(&[
                "allow-related", "allow-stateless", "allow", "drop", "reject",
            ])];
        }
    }

    /// `status` of a [`Subnet`].
    pub struct SubnetStatus {
        always {
            /// IPv4 addresses that are free.
            v4_available_ips: Count = "v4availableIPs";
            /// Free IPv4 addresses, as a comma list of a or a-b.
            v4_available_ip_range: String = "v4availableIPrange";
            /// IPv4 addresses in use.
            v4_using_ips: Count = "v4usingIPs";
            /// IPv4 addresses in use, as a comma list of a or a-b.
            v4_using_ip_range: String = "v4usingIPrange";
            /// IPv6 addresses that are free.
            v6_available_ips: Count = "v6availableIPs";
            /// Free IPv6 addresses, as a comma list of a or a-b.
            v6_available_ip_range: String = "v6availableIPrange";
            /// IPv6 addresses in use.
            v6_using_ips: Count = "v6usingIPs";
            /// IPv6 addresses in use, as a comma list of a or a-b.
            v6_using_ip_range: String = "v6usingIPrange";
            /// Active node of a centralized gateway.
            activate_gateway: String = "activateGateway";
            /// OVN DHCP options row for IPv4.
            dhcp_v4_options_uuid: String = "dhcpV4OptionsUUID";
            /// OVN DHCP options row for IPv6.
            dhcp_v6_options_uuid: String = "dhcpV6OptionsUUID";
            /// Address of the underlay to overlay connection.
            u2o_interconnection_ip: String = "u2oInterconnectionIP";
            /// MAC address of the underlay to overlay connection.
            u2o_interconnection_mac: String = "u2oInterconnectionMAC";
            /// Router of the underlay to overlay connection.
            u2o_interconnection_vpc: String = "u2oInterconnectionVPC";
            /// Address that multicast queries come from.
            mcast_querier_ip: String = "mcastQuerierIP";
            /// MAC address that multicast queries come from.
            mcast_querier_mac: String = "mcastQuerierMAC";
            /// Applied translation rules; empty when natOutgoing is off.
            nat_outgoing_policy_rules: Vec<NatRuleStatus> = "natOutgoingPolicyRules";
        }
        nonempty {
            /// Conditions of the subnet: Ready, Validated, Error.
            conditions: Vec<Condition> = "conditions";
            /// The spec that was valid last, as JSON. In force while the spec is not valid.
            last_valid_spec: String = "lastValidSpec";
        }
    }

    /// An applied translation rule.
    pub struct NatRuleStatus {
        always {
            /// Name of the rule's address sets on the nodes.
            rule_id: String = "ruleID";
            /// nat or forward.
            action: String = "action" [Enum(&["nat", "forward"])];
        }
        nonempty {
            /// Traffic that the rule is for.
            matching: NatMatch = "match";
        }
    }
}
