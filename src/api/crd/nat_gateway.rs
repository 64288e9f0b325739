use k8s_openapi::api::core::v1::{Affinity, Toleration};
use kube::CustomResource;

use super::{condition::Condition, shape::record};

record! {
    /// `spec` of a [`VpcNatGateway`].
    #[derive(CustomResource)]
    #[kube(
        group = "kubeovn.io", version = "v1", kind = "VpcNatGateway", plural = "vpc-nat-gateways",
        singular = "vpc-nat-gateway", shortname = "vpc-nat-gw", status = "VpcNatGatewayStatus",
        schema = "disabled",
        derive = "Default", derive = "PartialEq", attr = "cfg_attr(all(), serde(default))",
        doc = "A pod that joins a VPC to an external network and translates addresses with iptables.",
        printcolumn(name = "Vpc", type_ = "string", json_path = ".spec.vpc"),
        printcolumn(name = "Subnet", type_ = "string", json_path = ".spec.subnet"),
        printcolumn(name = "LanIP", type_ = "string", json_path = ".spec.lanIp")
    )]
    pub struct VpcNatGatewaySpec {
        always {
            /// VPC of the gateway. Cannot change.
            vpc: String = "vpc";
            /// Subnet inside the VPC. Cannot change.
            subnet: String = "subnet";
            /// Address of the gateway inside the VPC. Cannot change.
            lan_ip: String = "lanIp";
            /// External subnets, of which the first is used. Default: ovn-vpc-external-network.
            external_subnets: Vec<String> = "externalSubnets";
            /// Nodes for the gateway pod, as "key: value" labels.
            selector: Vec<String> = "selector";
            /// Taints that the gateway pod tolerates.
            tolerations: Vec<Toleration> = "tolerations";
            /// Placement of the gateway pod.
            affinity: Affinity = "affinity";
            /// QoSPolicy of the gateway: a shared one for NATGW.
            qos_policy: String = "qosPolicy";
            /// BGP speaker beside the gateway.
            bgp_speaker: BgpSpeaker = "bgpSpeaker";
        }
    }

    /// BGP speaker of a NAT gateway.
    pub struct BgpSpeaker {
        always {
            /// Run the speaker.
            enabled: bool = "enabled";
            /// Own AS number.
            asn: i64 = "asn";
            /// AS number of the neighbours.
            remote_asn: i64 = "remoteAsn";
            /// Addresses of the neighbours.
            neighbors: Vec<String> = "neighbors";
            /// Hold time, for example 1m30s.
            hold_time: String = "holdTime";
            /// Router id, an IPv4 address.
            router_id: String = "routerId";
            /// Password of the sessions (TCP MD5).
            password: String = "password";
            /// Use graceful restart.
            enable_graceful_restart: bool = "enableGracefulRestart";
            /// Further flags of the speaker.
            extra_args: Vec<String> = "extraArgs";
        }
    }

    /// `status` of a [`VpcNatGateway`]: the applied values of its spec.
    pub struct VpcNatGatewayStatus {
        always {
            /// QoSPolicy of the gateway.
            qos_policy: String = "qosPolicy";
            /// External subnets.
            external_subnets: Vec<String> = "externalSubnets";
            /// Nodes for the gateway pod.
            selector: Vec<String> = "selector";
            /// Taints that the gateway pod tolerates.
            tolerations: Vec<Toleration> = "tolerations";
            /// Placement of the gateway pod.
            affinity: Affinity = "affinity";
        }
    }

    /// `spec` of an [`IptablesEip`].
    #[derive(CustomResource)]
    #[kube(
        group = "kubeovn.io", version = "v1", kind = "IptablesEIP", root = "IptablesEip",
        plural = "iptables-eips", singular = "iptables-eip", shortname = "eip",
        status = "IptablesEipStatus", schema = "disabled",
        derive = "Default", derive = "PartialEq", attr = "cfg_attr(all(), serde(default))",
        doc = "An external address of a VpcNatGateway.",
        printcolumn(name = "IP", type_ = "string", json_path = ".status.ip"),
        printcolumn(name = "Mac", type_ = "string", json_path = ".spec.macAddress"),
        printcolumn(name = "Nat", type_ = "string", json_path = ".status.nat"),
        printcolumn(name = "NatGwDp", type_ = "string", json_path = ".spec.natGwDp"),
        printcolumn(name = "Ready", type_ = "boolean", json_path = ".status.ready")
    )]
    pub struct IptablesEipSpec {
        always {
            /// IPv4 address wanted; the chosen one is written back.
            v4ip: String = "v4ip";
            /// IPv6 address wanted; the chosen one is written back.
            v6ip: String = "v6ip";
            /// MAC address; written back.
            mac_address: String = "macAddress";
            /// Gateway that holds the address.
            nat_gw_dp: String = "natGwDp";
            /// QoSPolicy of the address.
            qos_policy: String = "qosPolicy";
            /// External subnet. Cannot change. Default: ovn-vpc-external-network.
            external_subnet: String = "externalSubnet";
        }
    }

    /// `status` of an [`IptablesEip`].
    pub struct IptablesEipStatus {
        always {
            /// The gateway holds the address.
            ready: bool = "ready";
            /// IPv4 address given.
            ip: String = "ip";
            /// Uses of the address: dnat, fip, snat.
            nat: String = "nat";
            /// When the gateway was last rebuilt, local time.
            redo: String = "redo";
            /// Applied value of spec.qosPolicy.
            qos_policy: String = "qosPolicy";
        }
        nonempty {
            /// Conditions of the address.
            conditions: Vec<Condition> = "conditions";
        }
    }

    /// `spec` of an [`IptablesFipRule`].
    #[derive(CustomResource)]
    #[kube(
        group = "kubeovn.io", version = "v1", kind = "IptablesFIPRule", root = "IptablesFipRule",
        plural = "iptables-fip-rules", singular = "iptables-fip-rule", shortname = "fip",
        status = "IptablesFipRuleStatus", schema = "disabled",
        derive = "Default", derive = "PartialEq", attr = "cfg_attr(all(), serde(default))",
        doc = "A one-to-one translation between an IptablesEIP and an inner address.",
        printcolumn(name = "Eip", type_ = "string", json_path = ".spec.eip"),
        printcolumn(name = "V4ip", type_ = "string", json_path = ".status.v4ip"),
        printcolumn(name = "InternalIp", type_ = "string", json_path = ".spec.internalIp"),
        printcolumn(name = "V6ip", type_ = "string", json_path = ".status.v6ip"),
        printcolumn(name = "Ready", type_ = "boolean", json_path = ".status.ready"),
        printcolumn(name = "NatGwDp", type_ = "string", json_path = ".status.natGwDp")
    )]
    pub struct IptablesFipRuleSpec {
        always {
            /// IptablesEIP to use, alone.
            eip: String = "eip";
            /// Inner address.
            internal_ip: String = "internalIp";
        }
    }

    /// `status` of an [`IptablesFipRule`].
    pub struct IptablesFipRuleStatus {
        always {
            /// The rule is in the gateway.
            ready: bool = "ready";
            /// IPv4 address of the IptablesEIP.
            v4ip: String = "v4ip";
            /// IPv6 address of the IptablesEIP.
            v6ip: String = "v6ip";
            /// Gateway that holds the rule.
            nat_gw_dp: String = "natGwDp";
            /// When the gateway was last rebuilt, local time.
            redo: String = "redo";
            /// Applied inner address.
            internal_ip: String = "internalIp";
        }
        nonempty {
            /// Conditions of the rule.
            conditions: Vec<Condition> = "conditions";
        }
    }

    /// `spec` of an [`IptablesDnatRule`].
    #[derive(CustomResource)]
    #[kube(
        group = "kubeovn.io", version = "v1", kind = "IptablesDnatRule",
        plural = "iptables-dnat-rules", singular = "iptables-dnat-rule", shortname = "dnat",
        status = "IptablesDnatRuleStatus", schema = "disabled",
        derive = "Default", derive = "PartialEq", attr = "cfg_attr(all(), serde(default))",
        doc = "A port of an IptablesEIP that leads to an inner address and port.",
        printcolumn(name = "Eip", type_ = "string", json_path = ".spec.eip"),
        printcolumn(name = "Protocol", type_ = "string", json_path = ".spec.protocol"),
        printcolumn(name = "V4ip", type_ = "string", json_path = ".status.v4ip"),
        printcolumn(name = "V6ip", type_ = "string", json_path = ".status.v6ip"),
        printcolumn(name = "InternalIp", type_ = "string", json_path = ".spec.internalIp"),
        printcolumn(name = "ExternalPort", type_ = "string", json_path = ".spec.externalPort"),
        printcolumn(name = "InternalPort", type_ = "string", json_path = ".spec.internalPort"),
        printcolumn(name = "NatGwDp", type_ = "string", json_path = ".status.natGwDp"),
        printcolumn(name = "Ready", type_ = "boolean", json_path = ".status.ready")
    )]
    pub struct IptablesDnatRuleSpec {
        always {
            /// IptablesEIP to use.
            eip: String = "eip";
            /// Outer port, as text.
            external_port: String = "externalPort";
            /// Inner address.
            internal_ip: String = "internalIp";
            /// Inner port, as text.
            internal_port: String = "internalPort";
        }
        nonempty {
            /// tcp or udp.
            protocol: String = "protocol";
        }
    }

    /// `status` of an [`IptablesDnatRule`].
    pub struct IptablesDnatRuleStatus {
        always {
            /// The rule is in the gateway.
            ready: bool = "ready";
            /// IPv4 address of the IptablesEIP.
            v4ip: String = "v4ip";
            /// IPv6 address of the IptablesEIP.
            v6ip: String = "v6ip";
            /// Gateway that holds the rule.
            nat_gw_dp: String = "natGwDp";
            /// When the gateway was last rebuilt, local time.
            redo: String = "redo";
            /// Applied protocol.
            protocol: String = "protocol";
            /// Applied inner address.
            internal_ip: String = "internalIp";
            /// Applied inner port.
            internal_port: String = "internalPort";
            /// Applied outer port.
            external_port: String = "externalPort";
        }
        nonempty {
            /// Conditions of the rule.
            conditions: Vec<Condition> = "conditions";
        }
    }

    /// `spec` of an [`IptablesSnatRule`].
    #[derive(CustomResource)]
    #[kube(
        group = "kubeovn.io", version = "v1", kind = "IptablesSnatRule",
        plural = "iptables-snat-rules", singular = "iptables-snat-rule", shortname = "snat",
        status = "IptablesSnatRuleStatus", schema = "disabled",
        derive = "Default", derive = "PartialEq", attr = "cfg_attr(all(), serde(default))",
        doc = "The IptablesEIP that inner addresses use to reach the outside.",
        printcolumn(name = "EIP", type_ = "string", json_path = ".spec.eip"),
        printcolumn(name = "V4ip", type_ = "string", json_path = ".status.v4ip"),
        printcolumn(name = "V6ip", type_ = "string", json_path = ".status.v6ip"),
        printcolumn(name = "InternalCIDR", type_ = "string", json_path = ".spec.internalCIDR"),
        printcolumn(name = "NatGwDp", type_ = "string", json_path = ".status.natGwDp"),
        printcolumn(name = "Ready", type_ = "boolean", json_path = ".status.ready")
    )]
    pub struct IptablesSnatRuleSpec {
        always {
            /// IptablesEIP to use.
            eip: String = "eip";
            /// Inner range, as CIDR.
            internal_cidr: String = "internalCIDR";
        }
    }

    /// `status` of an [`IptablesSnatRule`].
    pub struct IptablesSnatRuleStatus {
        always {
            /// The rule is in the gateway.
            ready: bool = "ready";
            /// IPv4 address of the IptablesEIP.
            v4ip: String = "v4ip";
            /// IPv6 address of the IptablesEIP.
            v6ip: String = "v6ip";
            /// Gateway that holds the rule.
            nat_gw_dp: String = "natGwDp";
            /// When the gateway was last rebuilt, local time.
            redo: String = "redo";
            /// Applied inner range.
            internal_cidr: String = "internalCIDR";
        }
        nonempty {
            /// Conditions of the rule.
            conditions: Vec<Condition> = "conditions";
        }
    }
}
