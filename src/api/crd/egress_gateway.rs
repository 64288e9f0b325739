use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Toleration, apimachinery::pkg::apis::meta::v1::LabelSelector};
use kube::CustomResource;

use super::{
    condition::ObservedCondition,
    pattern::{V4_V6, V6_V4},
    shape::{Rule, record},
};

const ADDRESSES: Rule = Rule::Items(&[Rule::OneOf(&[
    Rule::Format("ipv4"),
    Rule::Format("ipv6"),
    Rule::Pattern(V4_V6),
    Rule::Pattern(V6_V4),
])]);

const KEY: Rule = Rule::At("matchExpressions[].key", &[Rule::Required]);
const OPERATOR: Rule = Rule::At("matchExpressions[].operator", &[Rule::Required]);
const OPERATORS: &[&str] = &["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];

// Two rules each, though one with `has(..) && size(..) != 0` twice would do: in a list without
// maxItems its estimated cost passes the API server's budget by 5 %. The first keeps the message
// plain when both fields are absent, where the second cannot be evaluated.
const HAS_MATCH: &str = "has(self.matchLabels) || has(self.matchExpressions)";
const ANY_MATCH: &str = "size(self.matchLabels) != 0 || size(self.matchExpressions) != 0";
const NAMESPACE_MATCH: &str =
    "Each namespace selector MUST have at least one matchLabels or matchExpressions";
const POD_MATCH: &str = "Each pod selector MUST have at least one matchLabels or matchExpressions";
const POLICY_SOURCE: &str = "Each policy MUST have at least one ipBlock or subnet";

/// Rules of the whole `spec`; absent lists count as empty instead of failing the evaluation.
pub const VPC_EGRESS_GATEWAY_RULES: &[Rule] = &[
    Rule::CelAt(
        "!has(self.internalIPs) || size(self.internalIPs) == 0 || \
            size(self.internalIPs) >= self.replicas",
        "Size of Internal IPs MUST be equal to or greater than Replicas",
        ".internalIPs",
    ),
    Rule::CelAt(
        "!has(self.externalIPs) || size(self.externalIPs) == 0 || \
            size(self.externalIPs) >= self.replicas",
        "Size of External IPs MUST be equal to or greater than Replicas",
        ".externalIPs",
    ),
    Rule::Cel(
        "(has(self.policies) && size(self.policies) != 0) || \
            (has(self.selectors) && size(self.selectors) != 0)",
        "Each VPC Egress Gateway MUST have at least one policy or selector",
    ),
];

record! {
    /// `spec` of a [`VpcEgressGateway`].
    #[derive(CustomResource)]
    #[kube(
        group = "kubeovn.io", version = "v1", kind = "VpcEgressGateway", namespaced,
        plural = "vpc-egress-gateways", singular = "vpc-egress-gateway",
        shortname = "vpc-egress-gw", shortname = "veg", status = "VpcEgressGatewayStatus",
        schema = "disabled",
        derive = "Default", derive = "PartialEq", attr = "cfg_attr(all(), serde(default))",
        doc = "Pods that carry the outgoing traffic of a VPC, with failover by BFD.",
        scale(
            spec_replicas_path = ".spec.replicas",
            status_replicas_path = ".status.replicas",
            label_selector_path = ".status.labelSelector"
        ),
        printcolumn(name = "VPC", type_ = "string", json_path = ".spec.vpc"),
        printcolumn(name = "REPLICAS", type_ = "integer", json_path = ".spec.replicas"),
        printcolumn(name = "BFD ENABLED", type_ = "boolean", json_path = ".spec.bfd.enabled"),
        printcolumn(name = "EXTERNAL SUBNET", type_ = "string", json_path = ".spec.externalSubnet"),
        printcolumn(name = "PHASE", type_ = "string", json_path = ".status.phase"),
        printcolumn(name = "READY", type_ = "boolean", json_path = ".status.ready"),
        printcolumn(name = "INTERNAL IPS", type_ = "string", json_path = ".status.internalIPs", priority = 1),
        printcolumn(name = "EXTERNAL IPS", type_ = "string", json_path = ".status.externalIPs", priority = 1),
        printcolumn(name = "WORKING NODES", type_ = "string", json_path = ".status.workload.nodes", priority = 1),
        printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
    )]
    pub struct VpcEgressGatewaySpec {
        always {
            /// External subnet; its provider is that of a NetworkAttachmentDefinition. Cannot change.
            external_subnet: String = "externalSubnet" [Required];
            /// Failover by BFD.
            bfd: EgressBfd = "bfd";
        }
        nonempty {
            /// Number of gateway pods.
            replicas: i64 = "replicas" [Default("1"), Min(0), Max(10)];
            /// Put before the object's name to name the Deployment. Cannot change.
            prefix: String = "prefix" [
                AnyOf(&[
                    Pattern("^$"),
                    Pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*[-\.]?$"),
                ]),
                Cel("self == oldSelf", "This field is immutable."),
            ];
            /// VPC of the gateway. Cannot change. Default: the default VPC.
            vpc: String = "vpc";
            /// Image of the gateway pods; the controller's when empty.
            image: String = "image";
            /// Subnet inside the VPC. Cannot change. Default: the VPC's default subnet.
            internal_subnet: String = "internalSubnet";
            /// Inner addresses, one entry per pod.
            internal_ips: Vec<String> = "internalIPs" [Set, ADDRESSES];
            /// Outer addresses, one entry per pod.
            external_ips: Vec<String> = "externalIPs" [Set, ADDRESSES];
            /// Pods whose traffic leaves here.
            selectors: Vec<EgressSelector> = "selectors";
            /// Ranges and subnets whose traffic leaves here.
            policies: Vec<EgressPolicy> = "policies" [Items(&[
                Cel("has(self.ipBlocks) || has(self.subnets)", POLICY_SOURCE),
                Cel("size(self.ipBlocks) != 0 || size(self.subnets) != 0", POLICY_SOURCE),
            ])];
            /// Local prefers the gateway pod on the same node; Cluster spreads over all.
            traffic_policy: String = "trafficPolicy" [
                Default("\"Cluster\""), Enum(&["Local", "Cluster"]),
            ];
            /// Nodes for the gateway pods; one of the terms must hold.
            node_selector: Vec<EgressNodeTerm> = "nodeSelector" [
                At("[].matchExpressions[].key", &[Required]),
                At("[].matchExpressions[].operator", &[Required, Enum(OPERATORS)]),
                At("[].matchExpressions[].values", &[Set]),
                At("[].matchFields[].key", &[Required]),
                At("[].matchFields[].operator", &[Required, Enum(OPERATORS)]),
                At("[].matchFields[].values", &[Set]),
            ];
            /// Taints that the gateway pods tolerate.
            tolerations: Vec<Toleration> = "tolerations";
        }
    }

    /// BFD of an egress gateway.
    pub struct EgressBfd {
        always {
            /// Watch the gateway pods with BFD; the VPC needs its BFD port.
            enabled: bool = "enabled" [Default("false")];
        }
        nonempty {
            /// Shortest interval between received packets, in ms.
            min_rx: i64 = "minRX" [Default("1000"), Min(1), Max(3600000)];
            /// Interval between sent packets, in ms.
            min_tx: i64 = "minTX" [Default("1000"), Min(1), Max(3600000)];
            /// Lost packets that make a gateway count as down.
            multiplier: i64 = "multiplier" [Default("3"), Min(1), Max(3600000)];
        }
    }

    /// Pods that use an egress gateway.
    pub struct EgressSelector {
        nonempty {
            /// Their namespaces; all when left out.
            namespace_selector: Option<LabelSelector> = "namespaceSelector" [
                Cel(HAS_MATCH, NAMESPACE_MATCH), Cel(ANY_MATCH, NAMESPACE_MATCH),
                KEY, OPERATOR,
            ];
            /// Their labels; all pods when left out.
            pod_selector: Option<LabelSelector> = "podSelector" [
                Cel(HAS_MATCH, POD_MATCH), Cel(ANY_MATCH, POD_MATCH),
                KEY, OPERATOR,
            ];
        }
    }

    /// Sources that use an egress gateway.
    pub struct EgressPolicy {
        always {
            /// Replace the source address.
            snat: bool = "snat" [Default("false")];
        }
        nonempty {
            /// Addresses and CIDRs.
            ip_blocks: Vec<String> = "ipBlocks" [Set, Items(&[AnyOf(&[
                Format("ipv4"), Format("ipv6"), Format("cidr"),
            ])])];
            /// Subnets.
            subnets: Vec<String> = "subnets" [Set, Items(&[MinLength(1)])];
        }
    }

    /// Conditions on nodes that must all hold.
    pub struct EgressNodeTerm {
        nonempty {
            /// Labels of the node.
            match_labels: BTreeMap<String, String> = "matchLabels";
            /// Requirements on labels of the node.
            match_expressions: Vec<EgressNodeRequirement> = "matchExpressions";
            /// Requirements on fields of the node.
            match_fields: Vec<EgressNodeRequirement> = "matchFields";
        }
    }

    /// A requirement on a node.
    pub struct EgressNodeRequirement {
        nonempty {
            /// Label or field.
            key: String = "key";
            /// How the value is compared.
            operator: String = "operator";
            /// Values to compare with.
            values: Vec<String> = "values";
        }
    }

    /// `status` of a [`VpcEgressGateway`].
    pub struct VpcEgressGatewayStatus {
        always {
            /// Pending, Processing or Completed.
            phase: String = "phase" [
                Required, Default("\"Pending\""), Enum(&["Pending", "Processing", "Completed"]),
            ];
            /// All gateway pods work.
            ready: bool = "ready" [Default("false")];
            /// The Deployment of the gateway.
            workload: EgressWorkload = "workload";
            /// Conditions of the gateway: Ready, Validated, Init.
            conditions: Vec<ObservedCondition> = "conditions" [Required, MapKeys(&["type"])];
        }
        nonempty {
            /// Number of gateway pods.
            replicas: i64 = "replicas" [Min(0), Max(10)];
            /// Selects the gateway pods.
            label_selector: String = "labelSelector";
            /// Inner addresses, one entry per pod.
            internal_ips: Vec<String> = "internalIPs";
            /// Outer addresses, one entry per pod.
            external_ips: Vec<String> = "externalIPs";
        }
    }

    /// The Deployment of an egress gateway.
    pub struct EgressWorkload {
        nonempty {
            /// apps/v1.
            api_version: String = "apiVersion";
            /// Deployment.
            kind: String = "kind";
            /// Name of the Deployment.
            name: String = "name";
            /// Nodes that run the gateway pods.
            nodes: Vec<String> = "nodes";
        }
    }
}
