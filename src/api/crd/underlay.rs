use kube::CustomResource;

use super::{condition::NodeCondition, shape::record};

record! {
    /// `spec` of a [`Vlan`].
    #[derive(CustomResource)]
    #[kube(
        group = "kubeovn.io", version = "v1", kind = "Vlan", plural = "vlans", singular = "vlan",
        shortname = "vlan", status = "VlanStatus", schema = "disabled",
        derive = "Default", derive = "PartialEq", attr = "cfg_attr(all(), serde(default))",
        doc = "A VLAN of a physical network, for underlay subnets.",
        printcolumn(name = "ID", type_ = "string", json_path = ".spec.id"),
        printcolumn(name = "Provider", type_ = "string", json_path = ".spec.provider"),
        printcolumn(name = "conflict", type_ = "boolean", json_path = ".status.conflict")
    )]
    pub struct VlanSpec {
        always {
            /// VLAN tag; 0 is untagged.
            id: i64 = "id" [Min(0), Max(4095)];
        }
        nonempty {
            /// ProviderNetwork that carries the VLAN. Cannot change.
            provider: String = "provider" [Required];
            /// Former name of id; moved there.
            vlan_id: i64 = "vlanId";
            /// Former name of provider; moved there.
            provider_interface_name: String = "providerInterfaceName";
        }
    }

    /// `status` of a [`Vlan`].
    pub struct VlanStatus {
        nonempty {
            /// Subnets on the VLAN.
            subnets: Vec<String> = "subnets";
            /// Another Vlan of the same ProviderNetwork has the same tag.
            conflict: bool = "conflict";
        }
    }

    /// `spec` of a [`ProviderNetwork`].
    #[derive(CustomResource)]
    #[kube(
        group = "kubeovn.io", version = "v1", kind = "ProviderNetwork",
        plural = "provider-networks", singular = "provider-network",
        status = "ProviderNetworkStatus", schema = "disabled",
        derive = "Default", derive = "PartialEq", attr = "cfg_attr(all(), serde(default))",
        doc = "A physical network and the interface that leads to it on each node.",
        printcolumn(name = "DefaultInterface", type_ = "string", json_path = ".spec.defaultInterface"),
        printcolumn(name = "Ready", type_ = "boolean", json_path = ".status.ready")
    )]
    pub struct ProviderNetworkSpec {
        nonempty {
            /// Interface of the nodes that is put into the bridge of the network. Cannot change.
            default_interface: String = "defaultInterface" [
                Required, MaxLength(15), Pattern(r"^[^/\s]+$"),
            ];
            /// Nodes on which another interface is used.
            custom_interfaces: Vec<CustomInterface> = "customInterfaces";
            /// Nodes that the network leaves out.
            exclude_nodes: Vec<String> = "excludeNodes";
            /// Give the interface's name to the bridge, for software that expects it there.
            exchange_link_name: bool = "exchangeLinkName";
            /// Create an interface <nic>.<id> on the nodes for each Vlan.
            auto_create_vlan_subinterfaces: bool = "autoCreateVlanSubinterfaces";
        }
    }

    /// Nodes with another interface.
    pub struct CustomInterface {
        always {
            /// The interface.
            interface: String = "interface" [MaxLength(15), Pattern(r"^[^/\s]+$")];
            /// The nodes.
            nodes: Vec<String> = "nodes";
        }
    }

    /// `status` of a [`ProviderNetwork`].
    pub struct ProviderNetworkStatus {
        always {
            /// No node is without a working bridge.
            ready: bool = "ready";
        }
        nonempty {
            /// Nodes with a working bridge.
            ready_nodes: Vec<String> = "readyNodes";
            /// Nodes without one; their conditions say why.
            not_ready_nodes: Vec<String> = "notReadyNodes";
            /// Vlans of the network.
            vlans: Vec<String> = "vlans";
            /// Conditions, one per node.
            conditions: Vec<NodeCondition> = "conditions";
        }
    }
}
