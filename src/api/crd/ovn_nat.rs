use kube::CustomResource;

use super::{condition::Condition, shape::record};

record! {
    /// `spec` of an [`OvnEip`].
    #[derive(CustomResource)]
    #[kube(
        group = "kubeovn.io", version = "v1", kind = "OvnEip", plural = "ovn-eips",
        singular = "ovn-eip", shortname = "oeip", status = "OvnEipStatus", schema = "disabled",
        derive = "Default", derive = "PartialEq", attr = "cfg_attr(all(), serde(default))",
        doc = "An external address of a VPC's OVN router.",
        printcolumn(name = "V4IP", type_ = "string", json_path = ".status.v4Ip"),
        printcolumn(name = "V6IP", type_ = "string", json_path = ".status.v6Ip"),
        printcolumn(name = "Mac", type_ = "string", json_path = ".status.macAddress"),
        printcolumn(name = "Type", type_ = "string", json_path = ".status.type"),
        printcolumn(name = "Nat", type_ = "string", json_path = ".status.nat"),
        printcolumn(name = "Ready", type_ = "boolean", json_path = ".status.ready"),
        printcolumn(name = "ExternalSubnet", type_ = "string", json_path = ".spec.externalSubnet")
    )]
    pub struct OvnEipSpec {
        always {
            /// External subnet. Cannot change. Default: the controller's external switch.
            external_subnet: String = "externalSubnet";
            /// nat (default), lrp (router port) or lsp (node gateway).
            kind: String = "type";
            /// IPv4 address wanted; the chosen one is written back.
            v4_ip: String = "v4Ip";
            /// IPv6 address wanted; the chosen one is written back.
            v6_ip: String = "v6Ip";
            /// MAC address; written back.
            mac_address: String = "macAddress";
        }
    }

    /// `status` of an [`OvnEip`].
    pub struct OvnEipStatus {
        always {
            /// Applied type.
            kind: String = "type";
            /// Uses of the address: dnat, fip, snat.
            nat: String = "nat";
            /// The address is set up.
            ready: bool = "ready";
            /// IPv4 address given.
            v4_ip: String = "v4Ip";
            /// IPv6 address given.
            v6_ip: String = "v6Ip";
            /// MAC address given.
            mac_address: String = "macAddress";
        }
        nonempty {
            /// Conditions of the address.
            conditions: Vec<Condition> = "conditions";
        }
    }

    /// `spec` of an [`OvnFip`].
    #[derive(CustomResource)]
    #[kube(
        group = "kubeovn.io", version = "v1", kind = "OvnFip", plural = "ovn-fips",
        singular = "ovn-fip", shortname = "ofip", status = "OvnFipStatus", schema = "disabled",
        derive = "Default", derive = "PartialEq", attr = "cfg_attr(all(), serde(default))",
        doc = "A one-to-one translation between an OvnEip and an inner address.",
        printcolumn(name = "Vpc", type_ = "string", json_path = ".status.vpc"),
        printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
        printcolumn(name = "V4Eip", type_ = "string", json_path = ".status.v4Eip"),
        printcolumn(name = "V6Eip", type_ = "string", json_path = ".status.v6Eip"),
        printcolumn(name = "V4Ip", type_ = "string", json_path = ".status.v4Ip"),
        printcolumn(name = "V6Ip", type_ = "string", json_path = ".status.v6Ip"),
        printcolumn(name = "Ready", type_ = "boolean", json_path = ".status.ready"),
        printcolumn(name = "IpType", type_ = "string", json_path = ".spec.ipType"),
        printcolumn(name = "IpName", type_ = "string", json_path = ".spec.ipName")
    )]
    pub struct OvnFipSpec {
        always {
            /// OvnEip to use, alone.
            ovn_eip: String = "ovnEip";
            /// vip when ipName names a Vip; else it names an IP.
            ip_type: String = "ipType";
            /// Vip or IP that holds the inner address.
            ip_name: String = "ipName";
            /// VPC of the inner address. Cannot change.
            vpc: String = "vpc";
            /// Inner IPv4 address, instead of ipName.
            v4_ip: String = "v4Ip";
            /// Inner IPv6 address, instead of ipName.
            v6_ip: String = "v6Ip";
            /// distributed or centralized; the external gateway's type when empty.
            kind: String = "type";
        }
    }

    /// `status` of an [`OvnFip`].
    pub struct OvnFipStatus {
        always {
            /// The translation is set up.
            ready: bool = "ready";
            /// Outer IPv4 address.
            v4_eip: String = "v4Eip";
            /// Outer IPv6 address.
            v6_eip: String = "v6Eip";
            /// Inner IPv4 address.
            v4_ip: String = "v4Ip";
            /// Inner IPv6 address.
            v6_ip: String = "v6Ip";
            /// VPC whose router translates.
            vpc: String = "vpc";
        }
        nonempty {
            /// Conditions of the rule.
            conditions: Vec<Condition> = "conditions";
        }
    }

    /// `spec` of an [`OvnSnatRule`].
    #[derive(CustomResource)]
    #[kube(
        group = "kubeovn.io", version = "v1", kind = "OvnSnatRule", plural = "ovn-snat-rules",
        singular = "ovn-snat-rule", shortname = "osnat", status = "OvnSnatRuleStatus",
        schema = "disabled",
        derive = "Default", derive = "PartialEq", attr = "cfg_attr(all(), serde(default))",
        doc = "The OvnEip that inner addresses use to reach the outside.",
        printcolumn(name = "Vpc", type_ = "string", json_path = ".status.vpc"),
        printcolumn(name = "V4Eip", type_ = "string", json_path = ".status.v4Eip"),
        printcolumn(name = "V6Eip", type_ = "string", json_path = ".status.v6Eip"),
        printcolumn(name = "V4IpCidr", type_ = "string", json_path = ".status.v4IpCidr"),
        printcolumn(name = "V6IpCidr", type_ = "string", json_path = ".status.v6IpCidr"),
        printcolumn(name = "Ready", type_ = "boolean", json_path = ".status.ready")
    )]
    pub struct OvnSnatRuleSpec {
        always {
            /// OvnEip to use.
            ovn_eip: String = "ovnEip";
            /// Subnet whose addresses are translated.
            vpc_subnet: String = "vpcSubnet";
            /// IP whose addresses are translated, instead of a subnet.
            ip_name: String = "ipName";
            /// VPC of the inner addresses. Cannot change.
            vpc: String = "vpc";
            /// Inner IPv4 range, instead of a subnet.
            v4_ip_cidr: String = "v4IpCidr";
            /// Inner IPv6 range, instead of a subnet.
            v6_ip_cidr: String = "v6IpCidr";
        }
    }

    /// `status` of an [`OvnSnatRule`].
    pub struct OvnSnatRuleStatus {
        always {
            /// The translation is set up.
            ready: bool = "ready";
            /// Outer IPv4 address.
            v4_eip: String = "v4Eip";
            /// Outer IPv6 address.
            v6_eip: String = "v6Eip";
            /// Inner IPv4 range.
            v4_ip_cidr: String = "v4IpCidr";
            /// Inner IPv6 range.
            v6_ip_cidr: String = "v6IpCidr";
            /// VPC whose router translates.
            vpc: String = "vpc";
        }
        nonempty {
            /// Conditions of the rule.
            conditions: Vec<Condition> = "conditions";
        }
    }

    /// `spec` of an [`OvnDnatRule`].
    #[derive(CustomResource)]
    #[kube(
        group = "kubeovn.io", version = "v1", kind = "OvnDnatRule", plural = "ovn-dnat-rules",
        singular = "ovn-dnat-rule", shortname = "odnat", status = "OvnDnatRuleStatus",
        schema = "disabled",
        derive = "Default", derive = "PartialEq", attr = "cfg_attr(all(), serde(default))",
        doc = "A port of an OvnEip that leads to an inner address and port.",
        printcolumn(name = "Vpc", type_ = "string", json_path = ".status.vpc"),
        printcolumn(name = "Eip", type_ = "string", json_path = ".spec.ovnEip"),
        printcolumn(name = "Protocol", type_ = "string", json_path = ".status.protocol"),
        printcolumn(name = "V4Eip", type_ = "string", json_path = ".status.v4Eip"),
        printcolumn(name = "V6Eip", type_ = "string", json_path = ".status.v6Eip"),
        printcolumn(name = "V4Ip", type_ = "string", json_path = ".status.v4Ip"),
        printcolumn(name = "V6Ip", type_ = "string", json_path = ".status.v6Ip"),
        printcolumn(name = "InternalPort", type_ = "string", json_path = ".status.internalPort"),
        printcolumn(name = "ExternalPort", type_ = "string", json_path = ".status.externalPort"),
        printcolumn(name = "IpName", type_ = "string", json_path = ".spec.ipName"),
        printcolumn(name = "Ready", type_ = "boolean", json_path = ".status.ready")
    )]
    pub struct OvnDnatRuleSpec {
        always {
            /// OvnEip to use.
            ovn_eip: String = "ovnEip";
            /// vip when ipName names a Vip; else it names an IP.
            ip_type: String = "ipType";
            /// Vip or IP that holds the inner address.
            ip_name: String = "ipName";
            /// Inner port, as text.
            internal_port: String = "internalPort";
            /// Outer port, as text.
            external_port: String = "externalPort";
            /// VPC of the inner address. Cannot change.
            vpc: String = "vpc";
            /// Inner IPv4 address, instead of ipName.
            v4_ip: String = "v4Ip";
            /// Inner IPv6 address, instead of ipName.
            v6_ip: String = "v6Ip";
        }
        nonempty {
            /// tcp or udp.
            protocol: String = "protocol";
        }
    }

    /// `status` of an [`OvnDnatRule`].
    pub struct OvnDnatRuleStatus {
        always {
            /// The translation is set up.
            ready: bool = "ready";
            /// Outer IPv4 address.
            v4_eip: String = "v4Eip";
            /// Outer IPv6 address.
            v6_eip: String = "v6Eip";
            /// Outer port.
            external_port: String = "externalPort";
            /// Inner IPv4 address.
            v4_ip: String = "v4Ip";
            /// Inner IPv6 address.
            v6_ip: String = "v6Ip";
            /// Inner port.
            internal_port: String = "internalPort";
            /// Vip or IP that holds the inner address.
            ip_name: String = "ipName";
            /// VPC whose router translates.
            vpc: String = "vpc";
        }
        nonempty {
            /// Applied protocol.
            protocol: String = "protocol";
            /// Conditions of the rule.
            conditions: Vec<Condition> = "conditions";
        }
    }
}
