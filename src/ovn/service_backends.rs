//! Which endpoints serve a port of a Service, by Kubernetes' rules.

use std::net::IpAddr;

use crate::{
    api::{EndpointSlice, EndpointState, ServicePort, Text, socket},
    net::Family,
};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Backend<'a> {
    address: IpAddr,
    port: u16,
    state: EndpointState,
    node: Option<&'a Text>,
    zones: &'a [Text],
}

/// Endpoints of one port and family, in order, each once.
pub struct Backends<'a>(Vec<Backend<'a>>);

impl<'a> Backends<'a> {
    /// A port of a slice belongs to the port of the Service that has its name. An endpoint that is
    /// in two slices for a moment counts with its best state.
    pub fn read(slices: &[&'a EndpointSlice], port: &ServicePort, family: Family) -> Self {
        let mut all: Vec<Backend<'a>> = Vec::new();
        for slice in slices {
            let same =
                |p: &&crate::api::EndpointPort| p.name == port.name && p.protocol == port.protocol;
            for target in slice.ports.iter().filter(same) {
                let of_family = slice.endpoints.iter().filter(|e| {
                    Family::of(e.address) == family && e.state != EndpointState::Unready
                });
                all.extend(of_family.map(|e| Backend {
                    address: e.address,
                    port: target.port,
                    state: e.state,
                    node: e.node.as_ref(),
                    zones: &e.zones,
                }));
            }
        }
        all.sort();
        all.dedup_by_key(|b| (b.address, b.port));
        Backends(all)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ready ones, or, when there is none, those that terminate but still serve.
    fn usable(&self, near: impl Fn(&Backend<'a>) -> bool) -> String {
        let of = |state| self.0.iter().filter(move |b| b.state == state);
        let list = |state| {
            let sockets = of(state).filter(|b| near(b)).map(|b| socket(b.address, b.port));
            sockets.collect::<Vec<_>>().join(",")
        };
        let ready = list(EndpointState::Ready);
        if ready.is_empty() { list(EndpointState::Leaving) } else { ready }
    }

    /// As OVN writes them: `ip:port,ip:port`.
    pub fn everywhere(&self) -> String {
        self.usable(|_| true)
    }

    /// Those on a node.
    pub fn on(&self, node: &str) -> String {
        self.usable(|b| b.node.is_some_and(|n| &**n == node))
    }

    /// Nodes that have any.
    pub fn nodes(&self) -> Vec<&'a Text> {
        let mut nodes: Vec<&Text> = self.0.iter().filter_map(|b| b.node).collect();
        nodes.sort();
        nodes.dedup();
        nodes
    }

    fn ready(&self) -> impl Iterator<Item = &Backend<'a>> {
        self.0.iter().filter(|b| b.state == EndpointState::Ready)
    }

    /// Hints count only when every ready endpoint has one.
    pub fn are_hinted(&self) -> bool {
        self.ready().next().is_some() && self.ready().all(|b| !b.zones.is_empty())
    }

    /// Those hinted for a zone; all when there is none or the node has no zone.
    pub fn in_zone(&self, zone: Option<&Text>) -> String {
        let hinted = |b: &&Backend<'a>| zone.is_some_and(|zone| b.zones.contains(zone));
        let sockets: Vec<String> =
            self.ready().filter(hinted).map(|b| socket(b.address, b.port)).collect();
        if sockets.is_empty() { self.everywhere() } else { sockets.join(",") }
    }
}
