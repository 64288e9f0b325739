//! Plan of one pod NIC: OVS port, veth pair, addresses, routes.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    AttachError, AttachObserved, AttachPlan, AttachRequest, Datapath, DefaultRoute, GatewayCheck,
    HostOp, INTEGRATION_BRIDGE, NicNames, OvsPort, OvsPortKind, QUEUE_LENGTH, diff::covers,
    encap::is_link_local, nic::nic_names,
};
use crate::{
    api::{Text, names},
    net::{Cidr, Family, Link, LinkChange, LinkState, Place, Route, Scope, VethPair},
};

/// Plans a veth NIC. Applying the plan twice changes nothing the second time.
pub fn plan_attach(
    request: &AttachRequest,
    observed: &AttachObserved,
) -> Result<AttachPlan, AttachError> {
    let names = nic_names(&request.container_id, &request.ifname)?;
    if request.addresses.is_empty() {
        return Err(AttachError::NoAddress(request.ifname.clone()));
    }
    let nic = Nic { request, observed, names: &names };
    let pair = nic.pair()?;
    let (routes, warnings) = nic.routes();
    let iface_id = nic.iface_id();
    let mut ops = nic.release_rivals();
    ops.extend(nic.link_ops(pair));
    ops.extend(nic.address_ops());
    ops.extend(
        routes
            .iter()
            .filter(|route| !observed.pod_routes.contains(route))
            .map(|route| HostOp::ReplaceRoute { place: nic.pod(), route: route.clone() }),
    );
    let after_installed = request.addresses.iter().map(|(_, cidr)| HostOp::Announce {
        place: nic.pod(),
        link: request.ifname.clone(),
        mac: request.mac,
        address: cidr.address,
    });
    Ok(AttachPlan {
        iface_id,
        ops,
        after_installed: after_installed.collect(),
        gateways: nic.gateways_to_check(),
        gateway_check: request.gateway_check,
        rollback: plan_removal(&names.host),
        routes,
        warnings,
        names,
    })
}

/// Removes the NIC of this sandbox, whatever pod of that name lives now (upstream bug 14).
/// Everything it names may be missing.
pub fn plan_detach(container_id: &str, ifname: &str) -> Result<Vec<HostOp>, AttachError> {
    nic_names(container_id, ifname).map(|names| plan_removal(&names.host))
}

/// Removes a NIC by its host end. OVS lets go first: a port without its link would be reported as an error. Deleting the host
/// end takes the pod's end along.
pub fn plan_removal(host: &Text) -> Vec<HostOp> {
    vec![
        HostOp::RemoveOvsPort { bridge: INTEGRATION_BRIDGE.into(), port: host.clone() },
        HostOp::DeleteLink { place: Place::Host, link: host.clone() },
    ]
}

/// State of the veth pair before the plan.
enum Pair {
    Absent,
    /// The host end is left over from an attempt that failed half way.
    Broken,
    /// Both ends are there.
    Whole,
}

struct Nic<'a> {
    request: &'a AttachRequest,
    observed: &'a AttachObserved,
    names: &'a NicNames,
}

impl Nic<'_> {
    fn pod(&self) -> Place {
        Place::Namespace(self.request.netns.clone())
    }

    fn pod_link(&self) -> Option<&Link> {
        self.observed.pod_links.iter().find(|l| l.name == self.request.ifname)
    }

    /// The plan may take over what an earlier ADD of the same sandbox left, nothing else.
    fn pair(&self) -> Result<Pair, AttachError> {
        if let (Some(_), Some(port)) = (&self.observed.host_link, &self.observed.port)
            && let Some(owner) = port.external_ids.get("pod_netns")
            && *owner != self.request.netns
        {
            let owner = port.external_ids.get("iface-id").unwrap_or(owner).clone();
            return Err(AttachError::NameTaken { link: self.names.host.clone(), owner });
        }
        match (&self.observed.host_link, self.pod_link()) {
            (None, None) => Ok(Pair::Absent),
            (Some(_), None) => Ok(Pair::Broken),
            (Some(_), Some(inner)) if &*inner.kind == "veth" => Ok(Pair::Whole),
            (_, Some(_)) => Err(AttachError::IfnameTaken(self.request.ifname.clone())),
        }
    }

    /// One LSP is bound to one interface: any other that claims it lets go.
    fn release_rivals(&self) -> Vec<HostOp> {
        let rivals = self.observed.rivals.iter().filter(|name| **name != self.names.host);
        rivals
            .map(|interface| HostOp::SetInterfaceIds {
                interface: interface.clone(),
                ids: BTreeMap::from([("iface-id".into(), None)]),
            })
            .collect()
    }

    fn link_ops(&self, pair: Pair) -> Vec<HostOp> {
        let request = self.request;
        let mut ops = Vec::new();
        if matches!(pair, Pair::Broken) {
            ops.push(HostOp::DeleteLink { place: Place::Host, link: self.names.host.clone() });
        }
        if !matches!(pair, Pair::Whole) {
            ops.push(HostOp::CreateVeth(VethPair {
                host: self.names.host.clone(),
                peer: request.ifname.clone(),
                peer_place: self.pod(),
                peer_mac: request.mac,
                mtu: request.mtu,
                host_queue_length: QUEUE_LENGTH,
            }));
        }
        let port = self.ovs_port();
        if !self.observed.port.as_ref().is_some_and(|seen| covers(seen, &port)) {
            ops.push(HostOp::SetOvsPort(port));
        }
        let whole = matches!(pair, Pair::Whole);
        let host = self.observed.host_link.as_ref().filter(|_| whole);
        let host_change = host.map(|seen| LinkChange {
            mtu: request.mtu.filter(|mtu| seen.mtu != *mtu),
            tx_queue_length: (seen.tx_queue_length != QUEUE_LENGTH).then_some(QUEUE_LENGTH),
            state: (seen.state != LinkState::Up).then_some(LinkState::Up),
            ..LinkChange::default()
        });
        let set = |place: Place, link: &Text, change: LinkChange| {
            (!change.is_empty()).then(|| HostOp::SetLink { place, link: link.clone(), change })
        };
        ops.extend(set(Place::Host, &self.names.host, host_change.unwrap_or_default()));
        let change = self.pod_link_change(self.pod_link().filter(|_| whole));
        ops.extend(set(self.pod(), &request.ifname, change));
        if request.datapath == Datapath::Netdev && !whole {
            let link = request.ifname.clone();
            ops.push(HostOp::TxChecksumOff { place: self.pod(), link });
        }
        ops
    }

    /// A fresh pair already has MAC and MTU. The alias is read by kernel fast path modules.
    fn pod_link_change(&self, seen: Option<&Link>) -> LinkChange {
        let alias = Some(self.names.container.clone());
        let Some(seen) = seen else {
            return LinkChange { alias, state: Some(LinkState::Up), ..LinkChange::default() };
        };
        LinkChange {
            mac: Some(self.request.mac).filter(|mac| seen.mac != Some(*mac)),
            mtu: self.request.mtu.filter(|mtu| seen.mtu != *mtu),
            tx_queue_length: None,
            alias: alias.filter(|alias| seen.alias.as_ref() != Some(alias)),
            state: (seen.state != LinkState::Up).then_some(LinkState::Up),
        }
    }

    fn ovs_port(&self) -> OvsPort {
        let request = self.request;
        let ips = request.addresses.map(|c| c.address);
        let external_ids = [
            ("iface-id", self.iface_id()),
            ("vendor", names::VENDOR.into()),
            ("pod_name", request.owner_name.clone()),
            ("pod_namespace", request.namespace.clone()),
            ("ip", ips.to_string().into()),
            ("pod_netns", request.netns.clone()),
        ];
        OvsPort {
            bridge: INTEGRATION_BRIDGE.into(),
            name: self.names.host.clone(),
            kind: OvsPortKind::System,
            mac: None,
            mtu_request: None,
            external_ids: external_ids.into_iter().map(|(k, v)| (k.into(), v)).collect(),
        }
    }

    fn iface_id(&self) -> Text {
        let request = self.request;
        names::port_name(&request.owner_name, &request.namespace, &request.provider).into()
    }

    fn address_ops(&self) -> Vec<HostOp> {
        let link = &self.request.ifname;
        let seen: Vec<_> = self.observed.pod_addresses.iter().filter(|a| a.link == *link).collect();
        let wanted: Vec<Cidr> = self.request.addresses.iter().map(|(_, c)| *c).collect();
        let surplus = seen.iter().filter(|a| a.scope != Scope::Link && !wanted.contains(&a.cidr));
        let remove = surplus.map(|a| HostOp::RemoveAddress {
            place: self.pod(),
            link: link.clone(),
            cidr: a.cidr,
        });
        let missing = wanted.iter().filter(|cidr| !seen.iter().any(|a| a.cidr == **cidr));
        let add = missing.map(|cidr| HostOp::AddAddress {
            place: self.pod(),
            link: link.clone(),
            cidr: *cidr,
            dad: self.request.dad,
        });
        remove.chain(add).collect()
    }

    /// Default routes, then the extra ones in their order.
    fn routes(&self) -> (Vec<Route>, Vec<String>) {
        let request = self.request;
        let (mut routes, mut warnings) = (Vec::new(), Vec::new());
        if request.default_route == DefaultRoute::Wanted {
            for family in request.addresses.families() {
                let gateway = request.u2o_addresses.get(family).or(request.gateways.get(family));
                routes.extend(gateway.map(|gw| self.route(family.default_route(), *gw)));
            }
        }
        for extra in &request.routes {
            let family = extra.destination.family();
            let gateway = extra.gateway.or(request.gateways.get(family).copied());
            let why = match gateway {
                None => "there is no gateway of that family",
                Some(gateway) if Family::of(gateway) != family => {
                    "its gateway is of the other family"
                }
                Some(_) if request.addresses.get(family).is_none() => {
                    "the interface has no address of that family"
                }
                Some(gateway) => {
                    let route = self.route(extra.destination, gateway);
                    if !routes.contains(&route) {
                        routes.push(route);
                    }
                    continue;
                }
            };
            warnings.push(format!("route to {} left out: {why}", extra.destination));
        }
        (routes, warnings)
    }

    fn route(&self, destination: Cidr, gateway: IpAddr) -> Route {
        let mut route = Route::via(destination, gateway, &self.request.ifname);
        // A gateway outside the prefix is still reached through this link.
        route.on_link = !self.request.addresses.contains(gateway) && !is_link_local(gateway);
        route
    }

    /// The interconnection address of an underlay first, then the gateway of the subnet.
    fn gateways_to_check(&self) -> Vec<IpAddr> {
        let request = self.request;
        if request.gateway_check == GatewayCheck::Skipped {
            return Vec::new();
        }
        let both = [&request.u2o_addresses, &request.gateways];
        let of_ours = |family: &Family| request.addresses.get(*family).is_some();
        both.into_iter()
            .flat_map(|pair| pair.iter().filter(|(f, _)| of_ours(f)).map(|(_, ip)| *ip))
            .collect()
    }
}
