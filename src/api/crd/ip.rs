use kube::CustomResource;

use super::{
    condition::Condition,
    pattern::{V4_RANGE, V6_RANGE},
    shape::{Count, record},
};

record! {
    /// `spec` of an [`Ip`].
    #[derive(CustomResource)]
    #[kube(
        group = "kubeovn.io", version = "v1", kind = "IP", root = "Ip", plural = "ips",
        singular = "ip", shortname = "ip", schema = "disabled",
        derive = "Default", derive = "PartialEq", attr = "cfg_attr(all(), serde(default))",
        doc = "An address that is given to a port, or reserved for one.",
        printcolumn(name = "V4IP", type_ = "string", json_path = ".spec.v4IpAddress"),
        printcolumn(name = "V6IP", type_ = "string", json_path = ".spec.v6IpAddress"),
        printcolumn(name = "Mac", type_ = "string", json_path = ".spec.macAddress"),
        printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
        printcolumn(name = "Subnet", type_ = "string", json_path = ".spec.subnet")
    )]
    pub struct IpSpec {
        always {
            /// Pod, virtual machine or node that holds the address.
            pod_name: String = "podName";
            /// Namespace of the pod; empty for nodes.
            namespace: String = "namespace";
            /// Subnet of the address. Cannot change.
            subnet: String = "subnet";
            /// Not used; always empty.
            attach_subnets: Vec<String> = "attachSubnets";
            /// Node that the pod runs on.
            node_name: String = "nodeName";
            /// IPv4 address, IPv6 address or the pair.
            ip_address: String = "ipAddress";
            /// IPv4 address.
            v4_ip_address: String = "v4IpAddress";
            /// IPv6 address.
            v6_ip_address: String = "v6IpAddress";
            /// Not used; always empty.
            attach_ips: Vec<String> = "attachIps";
            /// MAC address.
            mac_address: String = "macAddress";
            /// Not used; always empty.
            attach_macs: Vec<String> = "attachMacs";
            /// Not used; always empty.
            container_id: String = "containerID";
            /// Empty, StatefulSet or VirtualMachine: who decides how long the address is kept.
            pod_type: String = "podType";
        }
    }

    /// `spec` of an [`IpPool`].
    #[derive(CustomResource)]
    #[kube(
        group = "kubeovn.io", version = "v1", kind = "IPPool", root = "IpPool",
        plural = "ippools", singular = "ippool", shortname = "ippool", status = "IpPoolStatus",
        schema = "disabled",
        derive = "Default", derive = "PartialEq", attr = "cfg_attr(all(), serde(default))",
        doc = "Addresses of a subnet set aside for some namespaces or for pods that name the pool.",
        printcolumn(name = "Subnet", type_ = "string", json_path = ".spec.subnet"),
        printcolumn(name = "IPs", type_ = "string", json_path = ".spec.ips"),
        printcolumn(name = "V4Used", type_ = "number", json_path = ".status.v4UsingIPs"),
        printcolumn(name = "V4Available", type_ = "number", json_path = ".status.v4AvailableIPs"),
        printcolumn(name = "V6Used", type_ = "number", json_path = ".status.v6UsingIPs"),
        printcolumn(name = "V6Available", type_ = "number", json_path = ".status.v6AvailableIPs")
    )]
    pub struct IpPoolSpec {
        nonempty {
            /// Subnet of the pool. Cannot change.
            subnet: String = "subnet" [
                Required,
                Cel("self == oldSelf", "This field is immutable."),
            ];
            /// Namespaces whose pods take their addresses from the pool.
            namespaces: Vec<String> = "namespaces" [Set];
            /// Members: addresses, ranges a..b or CIDRs inside the subnet.
            ips: Vec<String> = "ips" [
                Required,
                MinItems(1),
                Set,
                Items(&[AnyOf(&[
                    Format("ipv4"), Format("ipv6"), Format("cidr"),
                    Pattern(V4_RANGE), Pattern(V6_RANGE),
                ])]),
            ];
        }
    }

    /// `status` of an [`IpPool`].
    pub struct IpPoolStatus {
        always {
            /// IPv4 addresses that are free.
            v4_available_ips: Count = "v4AvailableIPs";
            /// Free IPv4 addresses, as a comma list of a or a-b.
            v4_available_ip_range: String = "v4AvailableIPRange";
            /// IPv4 addresses in use.
            v4_using_ips: Count = "v4UsingIPs";
            /// IPv4 addresses in use, as a comma list of a or a-b.
            v4_using_ip_range: String = "v4UsingIPRange";
            /// IPv6 addresses that are free.
            v6_available_ips: Count = "v6AvailableIPs";
            /// Free IPv6 addresses, as a comma list of a or a-b.
            v6_available_ip_range: String = "v6AvailableIPRange";
            /// IPv6 addresses in use.
            v6_using_ips: Count = "v6UsingIPs";
            /// IPv6 addresses in use, as a comma list of a or a-b.
            v6_using_ip_range: String = "v6UsingIPRange";
        }
        nonempty {
            /// Conditions of the pool: Ready, Error.
            conditions: Vec<Condition> = "conditions";
            /// The spec that was valid last, as JSON. In force while the spec is not valid.
            last_valid_spec: String = "lastValidSpec";
        }
    }

    /// `spec` of a [`Vip`].
    #[derive(CustomResource)]
    #[kube(
        group = "kubeovn.io", version = "v1", kind = "Vip", plural = "vips", singular = "vip",
        shortname = "vip", status = "VipStatus", schema = "disabled",
        derive = "Default", derive = "PartialEq", attr = "cfg_attr(all(), serde(default))",
        doc = "An address of a subnet that no single pod owns: shared by pods, by a switch load balancer or given to a pod later.",
        printcolumn(name = "V4IP", type_ = "string", json_path = ".status.v4ip"),
        printcolumn(name = "V6IP", type_ = "string", json_path = ".status.v6ip"),
        printcolumn(name = "Mac", type_ = "string", json_path = ".status.mac"),
        printcolumn(name = "Subnet", type_ = "string", json_path = ".spec.subnet"),
        printcolumn(name = "Type", type_ = "string", json_path = ".status.type")
    )]
    pub struct VipSpec {
        always {
            /// Namespace of the pods that may share the address. Cannot change.
            namespace: String = "namespace";
            /// Subnet of the address. Cannot change.
            subnet: String = "subnet";
            /// Empty, switch_lb_vip or kube_host_vm_vip. Cannot change.
            kind: String = "type";
            /// IPv4 address wanted; the chosen one is written back.
            v4ip: String = "v4ip";
            /// IPv6 address wanted; the chosen one is written back.
            v6ip: String = "v6ip";
            /// MAC address wanted; the chosen one is written back.
            mac_address: String = "macAddress";
            /// Pods that share the address, as key:value labels.
            selector: Vec<String> = "selector";
            /// Not used.
            attach_subnets: Vec<String> = "attachSubnets";
        }
    }

    /// `status` of a [`Vip`]; there is no status subresource, it is written with the object.
    pub struct VipStatus {
        always {
            /// Applied value of spec.type.
            kind: String = "type";
            /// IPv4 address given.
            v4ip: String = "v4ip";
            /// IPv6 address given.
            v6ip: String = "v6ip";
            /// MAC address given.
            mac: String = "mac";
        }
        nonempty {
            /// The address is set up.
            ready: bool = "ready";
            /// Applied value of spec.selector.
            selector: Vec<String> = "selector";
            /// Conditions of the address.
            conditions: Vec<Condition> = "conditions";
        }
    }
}
