//! The sender of a traced packet, as Kubernetes and OVN know it.

use anyhow::{Context, bail};
use serde_json::Value;
use std::net::IpAddr;

use super::{
    cluster::{Cluster, Database, each, text},
    exec::Place,
    packet::{Flow, Probe, Request, Sender, mac_with},
};
use crate::{
    api::names::annotation,
    net::{Cidr, DualStack, Family, Mac, parse_ip},
};

/// A pod or node with a logical port.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub port: String,
    pub node: String,
    pub switch: String,
    router: String,
    mac: Mac,
    addresses: Vec<IpAddr>,
    cidrs: DualStack<Cidr>,
}

/// The port of a pod is named after its virtual machine, if it runs one.
pub fn port_of(pod: &Value) -> String {
    let meta = &pod["metadata"];
    let mut owners = each(&meta["ownerReferences"]);
    let machine = owners.find(|o| o["kind"] == "VirtualMachineInstance");
    let name = machine.map_or(text(&meta["name"]), |owner| text(&owner["name"]));
    format!("{name}.{}", text(&meta["namespace"]))
}

/// A pod by name; one that uses the host's network counts as its node.
pub async fn find(cluster: &Cluster, sender: &Sender, probe: Probe) -> anyhow::Result<Endpoint> {
    let node = match sender {
        Sender::Node(node) => node.clone(),
        Sender::Pod { namespace, name } => {
            let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
            let pod = cluster.get(&path).await?;
            let pod = pod.with_context(|| format!("there is no pod {namespace}/{name}"))?;
            let node = text(&pod["spec"]["nodeName"]);
            if node.is_empty() {
                bail!("pod {namespace}/{name} runs on no node yet");
            }
            if pod["spec"]["hostNetwork"] != true {
                return endpoint(&pod, port_of(&pod), node.to_owned(), Vec::new())
                    .with_context(|| format!("pod {namespace}/{name}"));
            }
            node.to_owned()
        }
    };
    let object = cluster.get(&format!("/api/v1/nodes/{node}")).await?;
    let object = object.with_context(|| format!("there is no node {node:?}"))?;
    // The node's own addresses come first, as they do in its routing table; ARP is on ovn0 only.
    let own = each(&object["status"]["addresses"]).filter(|a| a["type"] == "InternalIP");
    let own = match probe {
        Probe::Arp(_) => Vec::new(),
        _ => own.filter_map(|a| parse_ip(text(&a["address"])).ok()).collect(),
    };
    let port = text(&object["metadata"]["annotations"][annotation::PORT_NAME]).to_owned();
    endpoint(&object, port, node.clone(), own).with_context(|| format!("node {node}"))
}

fn endpoint(
    object: &Value,
    port: String,
    node: String,
    first: Vec<IpAddr>,
) -> anyhow::Result<Endpoint> {
    let annotations = &object["metadata"]["annotations"];
    let value = |key: &str| text(&annotations[key]);
    let missing = |key: &str| format!("annotation {key} is missing: it has no network yet");
    let own = DualStack::parse_addresses(value(annotation::IP_ADDRESS))
        .with_context(|| missing(annotation::IP_ADDRESS))?;
    let mut addresses = first;
    addresses.extend(own.iter().map(|(_, ip)| *ip));
    let mac = value(annotation::MAC_ADDRESS).parse();
    Ok(Endpoint {
        port,
        node,
        switch: value(annotation::LOGICAL_SWITCH).to_owned(),
        router: value(annotation::LOGICAL_ROUTER).to_owned(),
        mac: mac.ok().with_context(|| missing(annotation::MAC_ADDRESS))?,
        addresses,
        cidrs: DualStack::parse_cidrs(value(annotation::CIDR)).unwrap_or_default(),
    })
}

impl Endpoint {
    /// The first of its addresses whose family the other has, too.
    pub fn address_for(&self, other: &Endpoint) -> Option<IpAddr> {
        let reached =
            |ip: &&IpAddr| other.addresses.iter().any(|own| Family::of(*own) == Family::of(**ip));
        self.addresses.iter().find(reached).copied()
    }

    /// The packet it sends, with the target MAC that the network stack would use.
    pub async fn flow(&self, cluster: &Cluster, request: &Request) -> anyhow::Result<Flow> {
        let family = Family::of(request.target);
        let source = self.addresses.iter().copied().find(|ip| Family::of(*ip) == family);
        let source = source
            .with_context(|| format!("{} has no IPv{} address", self.port, family.digit()))?;
        let target_mac = match (request.mac, request.probe) {
            (Some(mac), _) => mac,
            (None, Probe::Arp(_)) => super::packet::BROADCAST,
            (None, _) => self.next_hop(cluster, request.target).await?,
        };
        Ok(Flow {
            port: self.port.clone(),
            source_mac: self.mac,
            source,
            target_mac,
            target: request.target,
            probe: request.probe,
        })
    }

    /// Inside the subnet the target's own MAC, else that of the gateway.
    async fn next_hop(&self, cluster: &Cluster, target: IpAddr) -> anyhow::Result<Mac> {
        let nb = cluster.leader(Database::Northbound).await?;
        let path = format!("/apis/kubeovn.io/v1/subnets/{}", self.switch);
        let subnet = cluster.get(&path).await?.unwrap_or_default();
        let spec = &subnet["spec"];
        let router = match self.router.as_str() {
            "" => text(&spec["vpc"]),
            router => router,
        };
        let router_port = format!("{router}-{}", self.switch);
        if self.cidrs.contains(target) {
            return self.neighbour(cluster, &nb, &router_port, target).await;
        }
        let underlay = !text(&spec["vlan"]).is_empty()
            && spec["logicalGateway"] != true
            && spec["u2oInterconnection"] != true;
        if underlay {
            let gateways = DualStack::parse_addresses(text(&spec["gateway"])).unwrap_or_default();
            let family = Family::of(target);
            let gateway = gateways.get(family).copied().with_context(|| {
                format!("subnet {} has no IPv{} gateway", self.switch, family.digit())
            })?;
            return self.resolve(cluster, gateway).await;
        }
        eprintln!("using the logical gateway {router_port}");
        let columns = ["ovn-nbctl", "--no-leader-only", "get", "Logical_Router_Port", &router_port];
        let mac = cluster.text(&nb, &[&columns[..], &["mac"]].concat()).await?;
        mac.trim()
            .trim_matches('"')
            .parse()
            .ok()
            .with_context(|| format!("router port {router_port} has no MAC; give the target MAC"))
    }

    /// The MAC of an address on the sender's own switch; other switches may hold the same
    /// addresses.
    async fn neighbour(
        &self,
        cluster: &Cluster,
        nb: &Place,
        router_port: &str,
        target: IpAddr,
    ) -> anyhow::Result<Mac> {
        let query = ["ovn-nbctl", "--no-leader-only", "--format=json"];
        let ask = async |rest: &[&str]| -> anyhow::Result<Vec<Row>> {
            let answer = cluster.text(nb, &[&query[..], rest].concat()).await?;
            rows(&answer)
        };
        let switch = ask(&["--columns=ports", "list", "Logical_Switch", &self.switch]).await?;
        let members: Vec<String> = switch.iter().flat_map(|row| strings(&row["ports"])).collect();
        let ports = ask(&["--columns=_uuid,addresses", "list", "Logical_Switch_Port"]).await?;
        let own = ports.iter().filter(|r| strings(&r["_uuid"]).iter().all(|u| members.contains(u)));
        let addresses: Vec<String> = own.flat_map(|row| strings(&row["addresses"])).collect();
        if let Some(mac) = mac_with(addresses.iter().map(String::as_str), target) {
            return Ok(mac);
        }
        let find = ["--columns=mac,networks", "find", "Logical_Router_Port"];
        let named = format!("name=\"{router_port}\"");
        for row in ask(&[&find[..], &[&named]].concat()).await? {
            let holds = strings(&row["networks"]).iter().any(|network| {
                network.split('/').next().and_then(|ip| parse_ip(ip).ok()) == Some(target)
            });
            if holds && let Some(Ok(mac)) = strings(&row["mac"]).first().map(|mac| mac.parse()) {
                return Ok(mac);
            }
        }
        bail!("no port of switch {} has the address {target}; give the target MAC", self.switch)
    }

    /// Asks the network of an underlay subnet, out of the pod.
    async fn resolve(&self, cluster: &Cluster, gateway: IpAddr) -> anyhow::Result<Mac> {
        let switch = cluster.switch(&self.node).await?;
        let agent = cluster.agent(&self.node).await?;
        let interface = interface(cluster, &switch, &self.port).await?;
        let script = r#"ip="$1"; ping -c 1 -W 1 "$ip" >/dev/null 2>&1; ip neigh show "$ip""#;
        let netns = format!("--net={}", interface.netns);
        let gateway = gateway.to_string();
        let command = ["nsenter", &netns, "sh", "-c", script, "sh", &gateway];
        let known = cluster.text(&agent, &command).await?;
        let mac = known.split_whitespace().skip_while(|w| *w != "lladdr").nth(1);
        mac.and_then(|mac| mac.parse().ok()).with_context(|| {
            format!("the gateway {gateway} does not answer to {}; give the target MAC", self.port)
        })
    }
}

/// The Open vSwitch side of a logical port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub ofport: i64,
    /// `veth-pair` when empty.
    pub nic_type: String,
    /// Path of the pod's network namespace.
    pub netns: String,
}

pub async fn interface(cluster: &Cluster, at: &Place, port: &str) -> anyhow::Result<Interface> {
    let wanted = format!("external_ids:iface-id=\"{port}\"");
    let columns = "--columns=name,ofport,external_ids";
    let command = ["ovs-vsctl", "--format=json", columns, "find", "Interface", &wanted];
    let found = rows(&cluster.text(at, &command).await?)?;
    let row = found.first().with_context(|| {
        format!("node {} has no Open vSwitch interface with iface-id {port}", at.node)
    })?;
    let ids = |key: &str| {
        let pair = each(&row["external_ids"][1]).find(|pair| pair[0] == key);
        pair.map_or("", |pair| text(&pair[1])).to_owned()
    };
    Ok(Interface {
        name: text(&row["name"]).to_owned(),
        ofport: row["ofport"].as_i64().unwrap_or_default(),
        nic_type: ids("pod_nic_type"),
        netns: ids("pod_netns"),
    })
}

/// A row of an OVSDB table: column -> value (RFC 7047, section 5.1).
pub type Row = serde_json::Map<String, Value>;

/// The answer of `--format=json list` or `find`.
pub fn rows(answer: &str) -> anyhow::Result<Vec<Row>> {
    let table: Value = serde_json::from_str(answer).context("read a table of OVSDB")?;
    let heads: Vec<&str> = each(&table["headings"]).map(text).collect();
    let row = |cells: &Value| {
        let cells = each(cells).cloned();
        heads.iter().map(|head| (*head).to_owned()).zip(cells).collect()
    };
    Ok(each(&table["data"]).map(row).collect())
}

/// The texts and UUIDs of a set.
pub fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(pair) => match (pair.first().and_then(Value::as_str), pair.get(1)) {
            (Some("set"), Some(Value::Array(all))) => all.iter().flat_map(strings).collect(),
            (Some("uuid"), Some(Value::String(uuid))) => vec![uuid.clone()],
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn machines_name_their_ports() {
        let owner = json!([{"kind": "VirtualMachineInstance", "name": "vm1"}]);
        let mut pod = json!({"metadata": {"name": "virt-launcher-vm1-x", "namespace": "a"}});
        assert_eq!(port_of(&pod), "virt-launcher-vm1-x.a");
        pod["metadata"]["ownerReferences"] = owner;
        assert_eq!(port_of(&pod), "vm1.a");
    }

    #[test]
    fn tables_of_ovsdb() {
        let answer =
            r#"{"headings":["a","b"],"data":[["x",["set",[["uuid","u1"],["uuid","u2"]]]]]}"#;
        let found = rows(answer).expect("rows");
        assert_eq!(found[0]["a"], "x");
        assert_eq!(strings(&found[0]["b"]), ["u1", "u2"]);
        assert_eq!(strings(&json!("one")), ["one"]);
    }

    #[test]
    fn a_node_uses_its_own_address_first() {
        let node = json!({"metadata": {"annotations": {
            annotation::IP_ADDRESS: "100.64.0.2", annotation::MAC_ADDRESS: "0a:00:00:00:00:01",
            annotation::CIDR: "100.64.0.0/16", annotation::LOGICAL_SWITCH: "join"}}});
        let own = vec!["192.168.1.1".parse().expect("ip")];
        let found = endpoint(&node, "node-n1".into(), "n1".into(), own).expect("endpoint");
        assert_eq!(found.addresses.len(), 2);
        assert_eq!(found.addresses[0].to_string(), "192.168.1.1");
    }
}
