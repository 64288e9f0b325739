use kube::CustomResource;

use super::{condition::Condition, shape::record};

record! {
    /// `spec` of a [`VpcDns`].
    #[derive(CustomResource)]
    #[kube(
        group = "kubeovn.io", version = "v1", kind = "VpcDns", plural = "vpc-dnses",
        singular = "vpc-dns", shortname = "vpc-dns", status = "VpcDnsStatus", schema = "disabled",
        derive = "Default", derive = "PartialEq", attr = "cfg_attr(all(), serde(default))",
        doc = "A DNS server inside a VPC. A VPC has one that is active.",
        printcolumn(name = "Active", type_ = "boolean", json_path = ".status.active"),
        printcolumn(name = "Vpc", type_ = "string", json_path = ".spec.vpc"),
        printcolumn(name = "Subnet", type_ = "string", json_path = ".spec.subnet")
    )]
    pub struct VpcDnsSpec {
        always {
            /// VPC to serve. Cannot change.
            vpc: String = "vpc";
            /// Subnet of the server pods. Cannot change.
            subnet: String = "subnet";
        }
        nonempty {
            /// Number of server pods; 2 when left out.
            replicas: i64 = "replicas" [Min(1), Max(3)];
        }
    }

    /// `status` of a [`VpcDns`].
    pub struct VpcDnsStatus {
        always {
            /// The server is deployed.
            active: bool = "active";
        }
        nonempty {
            /// Conditions of the server.
            conditions: Vec<Condition> = "conditions";
        }
    }

    /// `spec` of a [`SwitchLbRule`].
    #[derive(CustomResource)]
    #[kube(
        group = "kubeovn.io", version = "v1", kind = "SwitchLBRule", root = "SwitchLbRule",
        plural = "switch-lb-rules", singular = "switch-lb-rule", shortname = "slr",
        status = "SwitchLbRuleStatus", schema = "disabled",
        derive = "Default", derive = "PartialEq", attr = "cfg_attr(all(), serde(default))",
        doc = "A load balancer address inside a VPC, in front of pods or fixed addresses.",
        printcolumn(name = "vip", type_ = "string", json_path = ".spec.vip"),
        printcolumn(name = "port(s)", type_ = "string", json_path = ".status.ports"),
        printcolumn(name = "service", type_ = "string", json_path = ".status.service"),
        printcolumn(name = "age", type_ = "date", json_path = ".metadata.creationTimestamp")
    )]
    pub struct SwitchLbRuleSpec {
        always {
            /// Front address, or a comma pair of both families.
            vip: String = "vip";
            /// Namespace of the pods and of the Service that is made.
            namespace: String = "namespace";
            /// Pods behind the address, as key:value labels.
            selector: Vec<String> = "selector";
            /// Fixed addresses behind the address; selector is ignored then.
            endpoints: Vec<String> = "endpoints";
            /// Ports of the address.
            ports: Vec<SwitchLbPort> = "ports";
        }
        nonempty {
            /// None or ClientIP.
            session_affinity: String = "sessionAffinity";
        }
    }

    /// A port of a [`SwitchLbRule`].
    pub struct SwitchLbPort {
        always {
            /// Name of the port.
            name: String = "name";
            /// Front port.
            port: i64 = "port" [Min(1), Max(65535)];
            /// TCP, UDP or SCTP.
            protocol: String = "protocol";
        }
        nonempty {
            /// Port of the pods.
            target_port: i64 = "targetPort" [Min(1), Max(65535)];
        }
    }

    /// `status` of a [`SwitchLbRule`].
    pub struct SwitchLbRuleStatus {
        always {
            /// Ports as 80/TCP,53/UDP.
            ports: String = "ports";
            /// Service that was made, as namespace/name.
            service: String = "service";
        }
    }
}
