//! What the Kubernetes API says about a connection, read from raw objects. Written from the API
//! documentation of networking.k8s.io/v1; shares no code with the product, not even its parsers.

use std::net::IpAddr;

use serde_json::Value;

/// A pod as the judge sees it.
#[derive(Debug, Clone)]
pub struct Pod<'a> {
    pub namespace: &'a str,
    pub labels: &'a Value,
    /// `spec.containers[].ports[]`, of all containers.
    pub ports: Vec<&'a Value>,
}

/// One end of a connection.
#[derive(Debug, Clone)]
pub struct End<'a> {
    /// `None`: outside the cluster.
    pub pod: Option<Pod<'a>>,
    pub ip: IpAddr,
}

/// A new connection.
#[derive(Debug, Clone)]
pub struct Connection<'a> {
    pub from: End<'a>,
    pub to: End<'a>,
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: &'a str,
    pub port: u16,
}

/// Policies and labels of namespaces.
pub struct Rules<'a> {
    pub policies: Vec<&'a Value>,
    pub namespaces: Vec<&'a Value>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

impl Rules<'_> {
    /// Both ends have to agree.
    pub fn allows(&self, connection: &Connection<'_>) -> bool {
        self.agrees(Way::Out, &connection.from, connection)
            && self.agrees(Way::In, &connection.to, connection)
    }

    /// A pod is free in a direction until a policy that has the direction selects it; then it is
    /// allowed what any of those policies allows.
    fn agrees(&self, way: Way, own: &End<'_>, connection: &Connection<'_>) -> bool {
        let Some(pod) = &own.pod else { return true };
        let concerned: Vec<&Value> = self
            .policies
            .iter()
            .copied()
            .filter(|p| p["metadata"]["namespace"] == pod.namespace)
            .filter(|p| has_direction(&p["spec"], way))
            .filter(|p| selected(&p["spec"]["podSelector"], pod.labels))
            .collect();
        concerned.is_empty() || concerned.iter().any(|p| self.admits(p, way, connection))
    }

    fn admits(&self, policy: &Value, way: Way, connection: &Connection<'_>) -> bool {
        let (rules, ends, other) = match way {
            Way::In => ("ingress", "from", &connection.from),
            Way::Out => ("egress", "to", &connection.to),
        };
        let namespace = policy["metadata"]["namespace"].as_str().unwrap();
        list(&policy["spec"][rules]).iter().any(|rule| {
            let (peers, ports) = (list(&rule[ends]), list(&rule["ports"]));
            (peers.is_empty() || peers.iter().any(|p| self.is_peer(p, namespace, other)))
                && (ports.is_empty() || ports.iter().any(|p| is_port(p, connection)))
        })
    }

    fn is_peer(&self, peer: &Value, namespace: &str, end: &End<'_>) -> bool {
        if let Some(cidr) = peer["ipBlock"]["cidr"].as_str() {
            let except = list(&peer["ipBlock"]["except"]);
            return inside(cidr, end.ip)
                && !except.iter().any(|e| inside(e.as_str().unwrap(), end.ip));
        }
        let Some(pod) = &end.pod else { return false };
        let place = match &peer["namespaceSelector"] {
            Value::Null => pod.namespace == namespace,
            selector => self
                .namespaces
                .iter()
                .find(|n| n["metadata"]["name"] == pod.namespace)
                .is_some_and(|n| selected(selector, &n["metadata"]["labels"])),
        };
        place && (peer["podSelector"].is_null() || selected(&peer["podSelector"], pod.labels))
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// `policyTypes`; without it Ingress always, Egress if there are egress rules.
fn has_direction(spec: &Value, way: Way) -> bool {
    let name = if way == Way::In { "Ingress" } else { "Egress" };
    match list(&spec["policyTypes"]) {
        [] => way == Way::In || !list(&spec["egress"]).is_empty(),
        types => types.iter().any(|t| t == name),
    }
}

/// A label selector; all its requirements hold.
fn selected(selector: &Value, labels: &Value) -> bool {
    let wanted = selector["matchLabels"].as_object();
    let equal = wanted.into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && list(&selector["matchExpressions"]).iter().all(|e| {
            let value = labels.get(e["key"].as_str().unwrap());
            let among = value.is_some_and(|v| list(&e["values"]).contains(v));
            match e["operator"].as_str().unwrap() {
                "In" => among,
                "NotIn" => !among,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                other => panic!("operator {other}"),
            }
        })
}

/// Ports are those of the destination, a name is a container port of the destination pod.
fn is_port(port: &Value, connection: &Connection<'_>) -> bool {
    if port["protocol"].as_str().unwrap_or("TCP") != connection.protocol {
        return false;
    }
    let number = u64::from(connection.port);
    match &port["port"] {
        Value::Null => true,
        Value::String(name) => connection.to.pod.iter().flat_map(|pod| &pod.ports).any(|own| {
            own["name"] == name.as_str()
                && own["protocol"].as_str().unwrap_or("TCP") == connection.protocol
                && own["containerPort"] == number
        }),
        first => {
            let last = port["endPort"].as_u64().or(first.as_u64()).unwrap();
            (first.as_u64().unwrap()..=last).contains(&number)
        }
    }
}

fn inside(cidr: &str, ip: IpAddr) -> bool {
    let (network, bits) = cidr.split_once('/').unwrap();
    let bits: u32 = bits.parse().unwrap();
    match (network.parse().unwrap(), ip) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let shift = 32 - bits;
            u64::from(a.to_bits()) >> shift == u64::from(b.to_bits()) >> shift
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            bits == 0 || a.to_bits() >> (128 - bits) == b.to_bits() >> (128 - bits)
        }
        _ => false,
    }
}
