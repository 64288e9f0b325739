//! A Service is one load balancer per protocol, with a key per address and port.
//!
//! What pods send to cluster IPs, external IPs and addresses of the status is balanced on their
//! switch. Node ports are kube-proxy's on the node that is asked, as is all that nodes send.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    api::{
        EndpointSlice, Index, Kind, Node, Pod, Protocol, Service, ServicePort, Settings, Subnet,
        Text, TrafficPolicy, front,
        names::{Session, annotation, label},
        parse::{SESSION_SECONDS, reason},
        socket,
    },
    net::Family,
    ovsdb::{
        row::{Element, Fact, RowBuilder, RowKey},
        schema::nb,
    },
    store::{Output, Problem, View, Wanted},
};

use super::{keys, load_balancer, placement, service_backends::Backends};

pub fn desired(view: &View<'_>, key: &str) -> Output {
    let (Some(service), Some(settings)) = (view.get::<Service>(key), view.get::<Settings>(""))
    else {
        return Output::default();
    };
    let mut output = Output::default();
    if !settings.enable_lb {
        return output;
    }
    let problem =
        |reason, message| Problem { kind: Kind::Service, key: key.into(), reason, message };
    output.problems.extend(service.invalid.iter().map(|f| problem(f.reason, f.message.clone())));
    if service.addresses().next().is_none() {
        return output;
    }
    let slices = view.list::<EndpointSlice>(Index::SlicesByService, key);
    let vpc = vpc_of(view, settings, service, &slices);
    if !load_balancer::has_group(view, &vpc) {
        let message = format!(
            "annotation {} or the subnet of the endpoints names Vpc {:?}, which does not exist; \
             create it or correct the annotation",
            annotation::VPC,
            &*vpc
        );
        output.problems.push(problem(reason::SERVICE, message));
        return output;
    }
    if service.session == Session::ClientIp && service.session_seconds != SESSION_SECONDS {
        let message = format!(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds {:?}: clients in pods keep their \
             endpoint as long as the list of endpoints stays the same; leave the field out",
            service.session_seconds
        );
        output.problems.push(problem("SessionAffinityTimeoutIgnored", message));
    }
    let mut plan = Plan { view, settings, service, rows: BTreeMap::new(), values: BTreeMap::new() };
    for port in &service.ports {
        for family in Family::BOTH {
            let backends = Backends::read(&slices, port, family);
            for address in service.addresses().filter(|a| Family::of(*a) == family) {
                if settings.node_local_dns.contains(&address) {
                    continue;
                }
                match rival(view, settings, service, (address, port), &vpc) {
                    Some(other) => {
                        let message = format!(
                            "{} is taken by Service {}/{} already; choose another address or port",
                            front(address, port),
                            other.namespace,
                            other.name
                        );
                        output.problems.push(problem(reason::SERVICE, message));
                    }
                    None => plan.add(address, port, &backends),
                }
            }
        }
    }
    output.facts = plan.facts(&vpc);
    let values = BTreeMap::from([(Text::from(annotation::VPC), Some(vpc))]);
    output.wanted.push(Wanted::Annotations { kind: Kind::Service, key: key.into(), values });
    output
}

/// The VPC in which the Service is: that of the first endpoint which is a pod of ours, else what
/// the annotation says. Only pods that slices name are looked at: a Service without a selector has
/// endpoints, too, and the other pods of its namespace are not them.
fn vpc_of(
    view: &View<'_>,
    settings: &Settings,
    service: &Service,
    slices: &[&EndpointSlice],
) -> Text {
    for endpoint in slices.iter().flat_map(|slice| &slice.endpoints) {
        let Some(pod) = &endpoint.pod else { continue };
        // The addresses of a launcher of a virtual machine are recorded for the machine.
        let key = format!("{}/{pod}", service.namespace);
        let Some(pod) = view.get::<Pod>(&key) else { continue };
        for ip in placement::pod_addresses(view, pod, settings) {
            if ip.addresses.iter().any(|(_, a)| *a == endpoint.address)
                && let Some(subnet) = view.get::<Subnet>(&ip.subnet)
            {
                return subnet.vpc.clone();
            }
        }
    }
    service.vpc.as_ref().unwrap_or(&settings.cluster_router).clone()
}

/// A Service of the same VPC that has an earlier right to the address and port. Cluster IPs go
/// before external ones: nobody takes over another's cluster IP by listing it as external.
fn rival<'a>(
    view: &View<'a>,
    settings: &Settings,
    service: &Service,
    (address, port): (IpAddr, &ServicePort),
    vpc: &Text,
) -> Option<&'a Service> {
    let rank = |s: &Service| {
        (!s.cluster_ips.contains(&address), s.created, s.namespace.clone(), s.name.clone())
    };
    let own = rank(service);
    let claims = view.list::<Service>(Index::ServicesByFront, &front(address, port));
    claims.into_iter().filter(|other| rank(other) < own).find(|other| {
        let key = format!("{}/{}", other.namespace, other.name);
        let slices = view.list::<EndpointSlice>(Index::SlicesByService, &key);
        vpc_of(view, settings, other, &slices) == *vpc
    })
}

/// From which endpoints a client is served.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spread {
    All,
    /// On the client's node, or not at all.
    Local,
    /// On the client's node, or all when there is none.
    PreferLocal,
    /// Hinted for the client's zone.
    Zone,
}

/// How the values of a row come about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Values {
    Literal,
    /// By variables, which have another value on each node.
    PerNode,
}

/// One row: a hash over source addresses and a template can only serve one family.
type Place = (Protocol, Option<Family>, Values);

struct Plan<'a, 's> {
    view: &'a View<'s>,
    settings: &'a Settings,
    service: &'a Service,
    rows: BTreeMap<Place, BTreeMap<String, String>>,
    /// By node, then by name.
    values: BTreeMap<Text, BTreeMap<String, String>>,
}

impl<'s> Plan<'_, 's> {
    fn add(&mut self, address: IpAddr, port: &ServicePort, backends: &Backends<'_>) {
        let family = Family::of(address);
        let key = socket(address, port.port);
        // Without any endpoint it is refused, as kube-proxy does, whatever the policy says.
        let spread = if backends.is_empty() { Spread::All } else { self.spread(address, backends) };
        if spread == Spread::All {
            let family = (self.service.session == Session::ClientIp).then_some(family);
            let row = self.rows.entry((port.protocol, family, Values::Literal)).or_default();
            row.insert(key, backends.everywhere());
            return;
        }
        let variable = self.variable(port, family, spread);
        let row = self.rows.entry((port.protocol, Some(family), Values::PerNode)).or_default();
        row.insert(key, format!("^{variable}"));
        for node in self.nodes(spread, backends) {
            let near = backends.on(&node.name);
            let value = match spread {
                Spread::Local => near,
                Spread::PreferLocal if !near.is_empty() => near,
                Spread::All | Spread::PreferLocal => backends.everywhere(),
                Spread::Zone => backends.in_zone(node.labels.get(label::ZONE)),
            };
            if load_balancer::chassis(node).is_some() && !value.is_empty() {
                self.values.entry(node.name.clone()).or_default().insert(variable.clone(), value);
            }
        }
    }

    /// A pod that asks for an external address is inside already: externalTrafficPolicy is about
    /// traffic from outside and does not bind it.
    fn spread(&self, address: IpAddr, backends: &Backends<'_>) -> Spread {
        let service = self.service;
        let inside = service.cluster_ips.contains(&address);
        let internal = inside && service.internal_traffic == TrafficPolicy::Local;
        let external = service.is_load_balancer && service.external_traffic == TrafficPolicy::Local;
        let preferring = self.settings.load_balancers.prefer_local;
        if preferring && (internal || external) {
            Spread::PreferLocal
        } else if internal {
            Spread::Local
        } else if backends.are_hinted() {
            Spread::Zone
        } else {
            Spread::All
        }
    }

    /// Nodes on which a value may be needed. Policy Local concerns those with endpoints; on the
    /// others the flow is not built, and nothing is served.
    fn nodes(&self, spread: Spread, backends: &Backends<'_>) -> Vec<&'s Node> {
        match spread {
            Spread::Local => {
                backends.nodes().into_iter().filter_map(|n| self.view.get::<Node>(n)).collect()
            }
            _ => self.view.all::<Node>(),
        }
    }

    fn variable(&self, port: &ServicePort, family: Family, spread: Spread) -> String {
        let Service { namespace, name, .. } = self.service;
        let kind = match spread {
            Spread::All | Spread::Local => "local",
            Spread::PreferLocal => "prefer",
            Spread::Zone => "zone",
        };
        let protocol = port.protocol.name();
        let id = format!("{namespace}/{name}/{protocol}/{}/{}/{kind}", port.port, family.digit());
        format!("lb_{:016x}", keys::hash(&id))
    }

    /// As whom a pod meets itself behind the Service; OVN's default is the address that it asked.
    /// Policies let a pod pass as any cluster IP (`policy_exemption`). External addresses may be
    /// those of others, who are not admitted for having been written into a Service.
    fn hairpin(&self) -> String {
        let Service { cluster_ips, external_ips, .. } = self.service;
        let of = |family| cluster_ips.iter().find(|ip| Family::of(**ip) == family);
        let ips = Family::BOTH.into_iter().filter_map(of).map(IpAddr::to_string);
        if external_ips.is_empty() { String::new() } else { ips.collect::<Vec<_>>().join(" ") }
    }

    fn facts(self, vpc: &str) -> Vec<Fact> {
        let mut facts = Vec::new();
        for (place, vips) in &self.rows {
            let key = self.key(*place);
            facts.push(self.row(&key, *place, vips, vpc));
            facts.push(Fact::Member {
                row: load_balancer::group(vpc),
                column: nb::load_balancer_group::LOAD_BALANCER,
                element: Element::Row(key),
            });
        }
        for (node, values) in self.values {
            facts.extend(values.into_iter().map(|(name, value)| Fact::Entry {
                row: load_balancer::variables(&node),
                column: nb::chassis_template_var::VARIABLES,
                key: name.into(),
                value: value.into(),
            }));
        }
        facts
    }

    fn key(&self, (protocol, family, values): Place) -> RowKey {
        let mut part = protocol.name().to_owned();
        if values == Values::PerNode {
            part.push_str("/near");
        }
        if let Some(family) = family {
            part.push('/');
            part.push(family.digit());
        }
        let owner = format!("{}/{}", self.service.namespace, self.service.name);
        RowKey::new(&nb::LOAD_BALANCER, "service", &owner, &part)
    }

    /// `reject`: a key without backends is answered with a reset or an unreachable, not silence.
    /// `ct_flush`: an UDP flow to an endpoint that is gone would go on for as long as its client
    /// sends; connections of TCP end by themselves, and those to an endpoint that terminates must
    /// be let finish. `affinity_timeout` is not used: its learning flow drops the packet that
    /// teaches it, and the first connection of each client never completes on the userspace
    /// datapath. A hash over the addresses keeps a client at its backend just as well.
    fn row(
        &self,
        key: &RowKey,
        (protocol, family, values): Place,
        vips: &BTreeMap<String, String>,
        vpc: &str,
    ) -> Fact {
        let Service { namespace, name, session, .. } = self.service;
        let shared = load_balancer::shared_name(vpc, self.settings, protocol, *session);
        let mut options = BTreeMap::from([("reject", "true")]);
        if protocol == Protocol::Udp {
            options.insert("ct_flush", "true");
        }
        let hairpin = self.hairpin();
        if !hairpin.is_empty() {
            options.insert("hairpin_snat_ip", &hairpin);
        }
        let mut hashed = BTreeSet::new();
        if let Some(family) = family {
            let (text, fields) = match family {
                Family::V4 => ("ipv4", ["ip_src", "ip_dst"]),
                Family::V6 => ("ipv6", ["ipv6_src", "ipv6_dst"]),
            };
            if values == Values::PerNode {
                options.extend([("template", "true"), ("address-family", text)]);
            }
            if *session == Session::ClientIp {
                hashed.extend(fields);
            }
        }
        RowBuilder::new(key)
            .set(nb::load_balancer::NAME, format!("{shared}/{namespace}/{name}"))
            .set(nb::load_balancer::PROTOCOL, protocol.name())
            .atoms(nb::load_balancer::SELECTION_FIELDS, hashed)
            .map(nb::load_balancer::OPTIONS, options)
            .map(nb::load_balancer::VIPS, vips.iter().map(|(k, v)| (k.as_str(), v.as_str())))
            .map(nb::load_balancer::EXTERNAL_IDS, [("service", format!("{namespace}/{name}"))])
            .fact()
    }
}
