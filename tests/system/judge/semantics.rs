//! What the Kubernetes API says about a connection, read from raw objects. Written from the API
//! documentation of networking.k8s.io/v1 and policy.networking.k8s.io/v1alpha1; shares no code with
//! the product, not even its parsers.

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

/// Policies of all kinds, and labels of namespaces.
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

    /// The administrators' rules first, then the developers' policies, then the baseline.
    fn agrees(&self, way: Way, own: &End<'_>, connection: &Connection<'_>) -> bool {
        let Some(pod) = &own.pod else { return true };
        let mut admins: Vec<&Value> = self.of_kind("AdminNetworkPolicy").collect();
        admins.sort_by_key(|policy| policy["spec"]["priority"].as_i64().unwrap());
        match self.verdict(admins, way, pod, connection) {
            Some("Allow") => return true,
            Some("Deny") => return false,
            _ => {}
        }
        if let Some(allowed) = self.namespaced(way, pod, connection) {
            return allowed;
        }
        let baseline = self.of_kind("BaselineAdminNetworkPolicy").collect();
        self.verdict(baseline, way, pod, connection) != Some("Deny")
    }

    fn of_kind(&self, kind: &'static str) -> impl Iterator<Item = &Value> {
        self.policies.iter().copied().filter(move |p| p["kind"] == kind)
    }

    /// The action of the first rule that the connection fits, of policies that have the pod as
    /// their subject, in their order.
    fn verdict<'s>(
        &self,
        policies: Vec<&'s Value>,
        way: Way,
        own: &Pod<'_>,
        connection: &Connection<'_>,
    ) -> Option<&'s str> {
        let (rules, ends, other) = match way {
            Way::In => ("ingress", "from", &connection.from),
            Way::Out => ("egress", "to", &connection.to),
        };
        policies
            .into_iter()
            .filter(|policy| self.is_admin_peer(&policy["spec"]["subject"], own))
            .flat_map(|policy| list(&policy["spec"][rules]))
            .find(|rule| {
                let fits = |peer: &Value| {
                    let networks = list(&peer["networks"]);
                    networks.iter().any(|n| inside(n.as_str().unwrap(), other.ip))
                        || other.pod.as_ref().is_some_and(|pod| self.is_admin_peer(peer, pod))
                };
                let ports = list(&rule["ports"]);
                list(&rule[ends]).iter().any(fits)
                    && (ports.is_empty() || ports.iter().any(|p| is_admin_port(p, connection)))
            })
            .map(|rule| rule["action"].as_str().unwrap())
    }

    /// `namespaces` or `pods` of a subject or peer.
    fn is_admin_peer(&self, peer: &Value, pod: &Pod<'_>) -> bool {
        let place = |selector: &Value| {
            let mut all = self.namespaces.iter();
            let own = all.find(|n| n["metadata"]["name"] == pod.namespace);
            own.is_some_and(|n| selected(selector, &n["metadata"]["labels"]))
        };
        let pods = &peer["pods"];
        if pods.is_null() {
            return !peer["namespaces"].is_null() && place(&peer["namespaces"]);
        }
        place(&pods["namespaceSelector"]) && selected(&pods["podSelector"], pod.labels)
    }

    /// A pod is free in a direction until a NetworkPolicy that has the direction selects it; then
    /// it is allowed what any of those policies allows.
    fn namespaced(&self, way: Way, pod: &Pod<'_>, connection: &Connection<'_>) -> Option<bool> {
        let concerned: Vec<&Value> = self
            .of_kind("NetworkPolicy")
            .filter(|p| p["metadata"]["namespace"] == pod.namespace)
            .filter(|p| has_direction(&p["spec"], way))
            .filter(|p| selected(&p["spec"]["podSelector"], pod.labels))
            .collect();
        let allowed = concerned.iter().any(|p| self.admits(p, way, connection));
        (!concerned.is_empty()).then_some(allowed)
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

/// Ports of the administrators' policies: a number, a range, or a name that means the container
/// ports of that name of the destination, whatever their protocol.
fn is_admin_port(port: &Value, connection: &Connection<'_>) -> bool {
    if let Some(name) = port["namedPort"].as_str() {
        return connection.to.pod.iter().flat_map(|pod| &pod.ports).any(|own| {
            own["name"] == name
                && own["protocol"].as_str().unwrap_or("TCP") == connection.protocol
                && own["containerPort"] == u64::from(connection.port)
        });
    }
    let (number, range) = (&port["portNumber"], &port["portRange"]);
    let of = if number.is_null() { range } else { number };
    let (first, last) = if number.is_null() { ("start", "end") } else { ("port", "port") };
    let limits = of[first].as_u64().unwrap()..=of[last].as_u64().unwrap();
    of["protocol"].as_str().unwrap_or("TCP") == connection.protocol
        && limits.contains(&u64::from(connection.port))
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
