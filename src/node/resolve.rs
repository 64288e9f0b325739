//! From a CNI request and the state to what is to be attached. Pure: asked again after every
//! change until it no longer says [`Resolution::Wait`].

use std::net::IpAddr;

use serde::Deserialize;

use crate::{
    api::{
        Node, Pod, PodLife, Subnet, Text, is_ovn_provider,
        names::{annotation, provider_key, suffix},
    },
    cni::{
        config::PLUGIN_TYPE,
        wire::{Request, Route},
    },
    host::{AttachRequest, Datapath, DefaultRoute, ExtraRoute, GatewayCheck, pod_mtu},
    net::{Cidr, Dad, DualStack, Family, Mac, parse_ip},
    node::state::State,
};

/// What the node itself contributes to an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    pub node: Text,
    pub datapath: Datapath,
    /// `None` until the tunnel interface is known.
    pub overlay_mtu: Option<u32>,
    /// `--enable-arp-detect-ip-conflict`.
    pub conflict_probe: ConflictProbe,
}

/// Whether addresses on segments that others share are probed for (RFC 5227, RFC 4862).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictProbe {
    On,
    Off,
}

/// Where a request stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// Something is missing that a watch will bring; names it.
    Wait(String),
    /// The pod itself is missing: the watch lags for moments only.
    WaitForPod(String),
    /// Waiting cannot help; says what to do.
    Refused(Refusal),
    Ready(Box<Ready>),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request itself is wrong (status 400).
    #[error("{0}")]
    Request(String),
    #[error("{0}")]
    Pod(String),
}

/// Everything that is needed to serve the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// `namespace/name`.
    pub pod: Text,
    pub uid: Text,
    pub subnet: Text,
    pub work: Work,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Make the interface.
    Interface(Box<AttachRequest>),
    /// Only tell the addresses; the main plugin makes the interface.
    Addresses(Addresses),
}

/// IPAM for another plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    pub addresses: DualStack<Cidr>,
    /// Empty when the interface does not carry the default route.
    pub gateways: DualStack<IpAddr>,
    pub routes: Vec<Route>,
}

/// Either half of a step: go on with a value, or stop with a resolution.
type Step<T> = Result<T, Resolution>;

fn wait<T>(what: impl Into<String>) -> Step<T> {
    Err(Resolution::Wait(what.into()))
}

fn refuse<T>(message: impl Into<String>) -> Step<T> {
    Err(Resolution::Refused(Refusal::Pod(message.into())))
}

/// Says what the request needs.
pub fn resolve(request: &Request, state: &State, facts: &NodeFacts) -> Resolution {
    match try_resolve(request, state, facts) {
        Ok(ready) => Resolution::Ready(Box::new(ready)),
        Err(resolution) => resolution,
    }
}

fn try_resolve(request: &Request, state: &State, facts: &NodeFacts) -> Step<Ready> {
    let pod = find_pod(request, state)?;
    let nic = read_nic(request, pod)?;
    let ready = |subnet: &Subnet, work| Ready {
        pod: format!("{}/{}", pod.namespace, pod.name).into(),
        uid: pod.uid.clone(),
        subnet: subnet.name.clone(),
        work,
    };
    let subnet = if is_ovn_provider(&request.provider) {
        find_subnet(request, pod, state)?
    } else {
        ipam_subnet(request, state)?
    };
    if request.cni_type != PLUGIN_TYPE {
        return Ok(ready(subnet, Work::Addresses(nic.addresses_only())));
    }
    refuse_unsupported(request, pod)?;
    let attach = interface(request, pod, subnet, nic, state, facts)?;
    Ok(ready(subnet, Work::Interface(Box::new(attach))))
}

fn find_pod<'a>(request: &Request, state: &'a State) -> Step<&'a Pod> {
    let key = format!("{}/{}", request.pod_namespace, request.pod_name);
    if state.has_ended(&request.pod_uid) {
        return refuse(format!("pod {key} was deleted; it gets no interface"));
    }
    let Some(pod) = state.store.get::<Pod>(&key) else {
        let what = format!("pod {key} to appear in the watch of this node");
        return Err(Resolution::WaitForPod(what));
    };
    // A StatefulSet pod keeps its name: the watch may still show the predecessor, whose address
    // may no longer be ours to use.
    if !request.pod_uid.is_empty() && request.pod_uid != *pod.uid {
        return Err(Resolution::WaitForPod(format!(
            "pod {key} with uid {} (the watch shows its predecessor {})",
            request.pod_uid, pod.uid
        )));
    }
    if pod.host_network {
        return refuse(format!("pod {key} has hostNetwork; it gets no interface"));
    }
    if pod.life != PodLife::Alive {
        return refuse(format!("pod {key} is being deleted or has ended; it gets no interface"));
    }
    // BUG 4: an invalid pod must never look like a success.
    if let Some(first) = pod.invalid.first() {
        return refuse(format!("pod {key}: {}", first.message));
    }
    Ok(pod)
}

/// What the annotations say about one NIC.
struct Nic {
    addresses: DualStack<Cidr>,
    gateways: DualStack<IpAddr>,
    default_route: DefaultRoute,
    /// Of the configuration, then of the annotation.
    routes: Vec<Route>,
}

impl Nic {
    fn addresses_only(self) -> Addresses {
        let gateways = match self.default_route {
            DefaultRoute::Wanted => self.gateways,
            DefaultRoute::None => DualStack::default(),
        };
        Addresses { addresses: self.addresses, gateways, routes: self.routes }
    }
}

fn read_nic(request: &Request, pod: &Pod) -> Step<Nic> {
    let provider = request.provider.as_str();
    let key = |name: &str| provider_key(provider, name);
    let get = |name: &str| pod.annotation(provider, name).map(|t| &**t).filter(|t| !t.is_empty());
    if get(suffix::ALLOCATED) != Some("true") {
        return wait(format!("annotation {}=true", key(suffix::ALLOCATED)));
    }
    let default_route = match get(suffix::DEFAULT_ROUTE) {
        Some("true") => DefaultRoute::Wanted,
        Some("false") => DefaultRoute::None,
        _ if request.if_name == "eth0" => DefaultRoute::Wanted,
        _ => DefaultRoute::None,
    };
    let routed = get(suffix::ROUTED) == Some("true");
    if default_route == DefaultRoute::Wanted && is_ovn_provider(provider) && !routed {
        return wait(format!("annotation {}=true", key(suffix::ROUTED)));
    }
    let required = |name: &str| match get(name) {
        Some(text) => Ok(text),
        None => wait(format!("annotation {}", key(name))),
    };
    let bad = |name: &str, error: &dyn std::fmt::Display| {
        Resolution::Refused(Refusal::Pod(format!(
            "pod {}/{}: annotation {}: {error}; delete the pod's ovn annotations to have them \
             written anew",
            pod.namespace,
            pod.name,
            key(name)
        )))
    };
    let ips = DualStack::parse_addresses(required(suffix::IP_ADDRESS)?)
        .map_err(|e| bad(suffix::IP_ADDRESS, &e))?;
    let cidrs =
        DualStack::parse_cidrs(required(suffix::CIDR)?).map_err(|e| bad(suffix::CIDR, &e))?;
    let mut addresses = DualStack::default();
    for (family, ip) in ips.iter() {
        match cidrs.get(family) {
            Some(cidr) if cidr.contains(*ip) => addresses.set(family, Some(cidr.with_address(*ip))),
            _ => return Err(bad(suffix::IP_ADDRESS, &format!("{ip} lies outside cidr {cidrs}"))),
        }
    }
    let gateways = match get(suffix::GATEWAY) {
        Some(text) => DualStack::parse_addresses(text).map_err(|e| bad(suffix::GATEWAY, &e))?,
        None => DualStack::default(),
    };
    let mut routes = request.routes.clone();
    routes.extend(annotated_routes(get(suffix::ROUTES)).map_err(|e| bad(suffix::ROUTES, &e))?);
    Ok(Nic { addresses, gateways, default_route, routes })
}

/// `[{"dst":"cidr","gw":"ip"}]`; unknown keys are ignored, a null or missing dst is the default.
fn annotated_routes(text: Option<&str>) -> Result<Vec<Route>, String> {
    #[derive(Deserialize)]
    struct Annotated {
        dst: Option<String>,
        gw: Option<String>,
    }
    let Some(text) = text else { return Ok(Vec::new()) };
    let list: Vec<Annotated> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    list.into_iter()
        .map(|r| {
            let route = Route { dst: r.dst.unwrap_or_default(), gw: r.gw.unwrap_or_default() };
            route.validate().map_err(|e| e.to_string())?;
            Ok(route)
        })
        .collect()
}

/// NIC kinds of later issues are refused by name instead of getting a wrong interface.
fn refuse_unsupported(request: &Request, pod: &Pod) -> Step<()> {
    if !request.device_id.is_empty() {
        return refuse(format!(
            "deviceID {}: hardware offload is not supported by this version",
            request.device_id
        ));
    }
    if !request.vhost_user_socket_volume_name.is_empty() {
        return refuse("vhost_user_socket_volume_name: DPDK is not supported by this version");
    }
    match pod.annotation(&request.provider, suffix::POD_NIC_TYPE).map(|t| &**t) {
        None | Some("" | "veth-pair" | "sriov") => Ok(()),
        Some(other) => refuse(format!(
            "annotation {}={other} is not supported by this version; use veth-pair",
            provider_key(&request.provider, suffix::POD_NIC_TYPE)
        )),
    }
}

fn find_subnet<'a>(request: &Request, pod: &Pod, state: &'a State) -> Step<&'a Subnet> {
    let key = provider_key(&request.provider, suffix::LOGICAL_SWITCH);
    let Some(name) = pod.annotation(&request.provider, suffix::LOGICAL_SWITCH) else {
        return wait(format!("annotation {key}"));
    };
    match state.store.get::<Subnet>(name) {
        Some(subnet) => Ok(subnet),
        None => wait(format!("subnet {name} (annotation {key}) to exist and be valid")),
    }
}

fn ipam_subnet<'a>(request: &Request, state: &'a State) -> Step<&'a Subnet> {
    let found = state.store.iter::<Subnet>().find(|s| *s.provider == *request.provider);
    found.ok_or_else(|| {
        Resolution::Refused(Refusal::Request(format!(
            "no subnet has spec.provider {:?}; create one for this attachment",
            request.provider
        )))
    })
}

fn interface(
    request: &Request,
    pod: &Pod,
    subnet: &Subnet,
    nic: Nic,
    state: &State,
    facts: &NodeFacts,
) -> Step<AttachRequest> {
    let get = |name: &str| pod.annotation(&request.provider, name).filter(|t| !t.is_empty());
    let mac_key = provider_key(&request.provider, suffix::MAC_ADDRESS);
    let Some(text) = get(suffix::MAC_ADDRESS) else {
        return wait(format!("annotation {mac_key}"));
    };
    let mac: Mac = match text.parse() {
        Ok(mac) => mac,
        Err(error) => return refuse(format!("annotation {mac_key}: {error}")),
    };
    // The kernel would say "Cannot assign requested address", which helps nobody.
    if mac.0[0] & 1 == 1 || mac.0 == [0; 6] {
        return refuse(format!(
            "annotation {mac_key}={mac}: no interface can have it; \
                               use a unicast address, or remove the annotation to get one"
        ));
    }
    let Some(overlay_mtu) = facts.overlay_mtu else {
        return wait("the tunnel interface of this node");
    };
    let node = state.store.get::<Node>(&facts.node);
    let labels = node.map(|n| n.labels.clone()).unwrap_or_default();
    let provider_network = get(suffix::PROVIDER_NETWORK).map(|t| &**t);
    let migrating = pod.annotations.contains_key(annotation::MIGRATION_JOB_NAME);
    let u2o_addresses = u2o_addresses(subnet, state)?;
    Ok(AttachRequest {
        owner_name: get(suffix::VIRTUALMACHINE).unwrap_or(&pod.name).clone(),
        namespace: pod.namespace.clone(),
        provider: request.provider.as_str().into(),
        container_id: request.container_id.as_str().into(),
        netns: request.net_ns.as_str().into(),
        ifname: request.if_name.as_str().into(),
        mac,
        gateways: usable_gateways(&nic),
        addresses: nic.addresses,
        u2o_addresses,
        default_route: nic.default_route,
        routes: extra_routes(&nic.routes)?,
        mtu: pod_mtu(subnet, provider_network, &labels, overlay_mtu),
        datapath: facts.datapath,
        // On an overlay nobody else can have the address: IPAM guarantees it.
        dad: match facts.conflict_probe {
            ConflictProbe::On if !migrating && !subnet.is_overlay() => Dad::Detect,
            _ => Dad::Skip,
        },
        gateway_check: if migrating || get(suffix::ACTIVATION_STRATEGY).is_some() {
            GatewayCheck::Skipped
        } else if subnet.disable_gateway_check {
            GatewayCheck::Lenient
        } else {
            GatewayCheck::Required
        },
    })
}

/// BUG 5: a U2O subnet whose address is not there yet is waited for, not answered with nothing.
fn u2o_addresses(subnet: &Subnet, state: &State) -> Step<DualStack<IpAddr>> {
    if !subnet.u2o_interconnection || subnet.logical_gateway {
        return Ok(DualStack::default());
    }
    match state.subnet_status.get(&subnet.name).map(|s| s.u2o_addresses) {
        Some(addresses) if !addresses.is_empty() => Ok(addresses),
        _ => wait(format!("status.u2oInterconnectionIP of subnet {}", subnet.name)),
    }
}

/// Gateways of the families that the NIC has an address in.
fn usable_gateways(nic: &Nic) -> DualStack<IpAddr> {
    let has = |family: &Family| nic.addresses.get(*family).is_some();
    nic.gateways.iter().filter(|(f, _)| has(f)).map(|(f, ip)| (f, *ip)).collect()
}

fn extra_routes(routes: &[Route]) -> Step<Vec<ExtraRoute>> {
    let bad =
        |e: crate::net::NetError| Resolution::Refused(Refusal::Request(format!("routes: {e}")));
    routes
        .iter()
        .map(|route| {
            let gateway = match route.gw.as_str() {
                "" => None,
                text => Some(parse_ip(text).map_err(bad)?),
            };
            let destination = match (route.dst.as_str(), gateway) {
                ("", Some(gw)) => Family::of(gw).default_route(),
                (text, _) => text.parse::<Cidr>().map_err(bad)?,
            };
            Ok(ExtraRoute { destination, gateway })
        })
        .collect()
}
