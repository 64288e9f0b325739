use kube::CustomResource;

use super::{condition::Condition, shape::record};

record! {
    /// `spec` of a [`SecurityGroup`].
    #[derive(CustomResource)]
    #[kube(
        group = "kubeovn.io", version = "v1", kind = "SecurityGroup", plural = "security-groups",
        singular = "security-group", shortname = "sg", status = "SecurityGroupStatus",
        schema = "disabled",
        derive = "Default", derive = "PartialEq", attr = "cfg_attr(all(), serde(default))",
        doc = "Rules for the traffic of the ports that name the group."
    )]
    pub struct SecurityGroupSpec {
        nonempty {
            /// Rules for traffic towards the ports.
            ingress_rules: Vec<SecurityRule> = "ingressRules";
            /// Rules for traffic from the ports.
            egress_rules: Vec<SecurityRule> = "egressRules";
            /// Permit traffic between the ports of the group.
            allow_same_group_traffic: bool = "allowSameGroupTraffic";
        }
    }

    /// One rule of a security group.
    pub struct SecurityRule {
        always {
            /// ipv4 or ipv6.
            ip_version: String = "ipVersion";
            /// address or securityGroup.
            remote_type: String = "remoteType";
            /// allow; every other value drops.
            policy: String = "policy";
        }
        nonempty {
            /// all, icmp, tcp or udp.
            protocol: String = "protocol";
            /// 1 to 200; lower comes first.
            priority: i64 = "priority";
            /// Address or CIDR, when remoteType is address.
            remote_address: String = "remoteAddress";
            /// Group, when remoteType is securityGroup.
            remote_security_group: String = "remoteSecurityGroup";
            /// First port of tcp or udp, 1 to 65535.
            port_range_min: i64 = "portRangeMin";
            /// Last port of tcp or udp, 1 to 65535.
            port_range_max: i64 = "portRangeMax";
        }
    }

    /// `status` of a [`SecurityGroup`].
    pub struct SecurityGroupStatus {
        always {
            /// OVN port group.
            port_group: String = "portGroup";
            /// Applied value of spec.allowSameGroupTraffic.
            allow_same_group_traffic: bool = "allowSameGroupTraffic";
            /// Hash of the applied ingress rules.
            ingress_md5: String = "ingressMd5";
            /// Hash of the applied egress rules.
            egress_md5: String = "egressMd5";
            /// The ingress rules are applied.
            ingress_last_sync_success: bool = "ingressLastSyncSuccess";
            /// The egress rules are applied.
            egress_last_sync_success: bool = "egressLastSyncSuccess";
        }
        nonempty {
            /// Conditions of the group.
            conditions: Vec<Condition> = "conditions";
        }
    }

    /// `spec` of a [`QosPolicy`].
    #[derive(CustomResource)]
    #[kube(
        group = "kubeovn.io", version = "v1", kind = "QoSPolicy", root = "QosPolicy",
        plural = "qos-policies", singular = "qos-policy", shortname = "qos",
        status = "QosPolicyStatus", schema = "disabled",
        derive = "Default", derive = "PartialEq", attr = "cfg_attr(all(), serde(default))",
        doc = "Bandwidth limits for elastic addresses or NAT gateways.",
        printcolumn(name = "Shared", type_ = "string", json_path = ".spec.shared"),
        printcolumn(name = "BindingType", type_ = "string", json_path = ".spec.bindingType")
    )]
    pub struct QosPolicySpec {
        always {
            /// Several objects may use the policy; needed for NATGW. Cannot change.
            shared: bool = "shared";
            /// EIP or NATGW: what the policy is for. Cannot change.
            binding_type: String = "bindingType";
            /// The limits.
            bandwidth_limit_rules: Vec<BandwidthRule> = "bandwidthLimitRules" [
                MapKeys(&["name"]),
                At("[].name", &[Required]),
            ];
        }
    }

    /// A bandwidth limit.
    pub struct BandwidthRule {
        always {
            /// Name of the rule, unique in the policy.
            name: String = "name";
        }
        nonempty {
            /// Interface in the gateway pod, for example net1.
            interface: String = "interface";
            /// Rate in Mbit/s, a bare number.
            rate_max: String = "rateMax";
            /// Burst in Mbit, a bare number.
            burst_max: String = "burstMax";
            /// Priority of the filter; lower comes first.
            priority: i64 = "priority";
            /// ingress or egress.
            direction: String = "direction";
            /// Empty for all traffic, or ip.
            match_type: String = "matchType";
            /// With ip: src <cidr> or dst <cidr>.
            match_value: String = "matchValue";
        }
    }

    /// `status` of a [`QosPolicy`].
    pub struct QosPolicyStatus {
        always {
            /// Applied value of spec.shared.
            shared: bool = "shared";
            /// Applied value of spec.bindingType.
            binding_type: String = "bindingType";
            /// Applied limits, sorted by name.
            bandwidth_limit_rules: Vec<BandwidthRule> = "bandwidthLimitRules";
        }
        nonempty {
            /// Conditions of the policy.
            conditions: Vec<Condition> = "conditions";
        }
    }
}
