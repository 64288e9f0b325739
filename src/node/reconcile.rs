//! The host loop: makes the node what the view says, whenever anything that it depends on changes,
//! and looks for drift every half minute.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    apply::Executor,
    nics::nics,
    observe::{Firewall, KernelDump, dump, interrupted, observe_firewall, observe_host},
    ovs_rows::{datapath, observe_ovs, vendor_bridge_ports},
    resolve::NodeFacts,
    state::{Cluster, State},
    vswitch::Connection,
};
use crate::{
    api::{
        ExternalGateway, Kind, Map, Node, Pod, PodLife, ServiceCidr, Subnet, Text,
        names::{annotation, label, suffix},
    },
    host::{
        Datapath, Encap, EncapRequest, ExternalView, HostOp, HostState, HostView, LocalPod,
        MirrorScope, MirrorView, NetworkType, Observed, ObservedOvs, OvsPortKind, SubnetView,
        choose_encap, desired_host, diff_host, overlay_mtu, parse_join, parse_set_names,
        unreachable_gateways,
    },
    kernel::{self, Monitor, within},
    net::{Cidr, DualStack, Place},
};

/// Drift nobody tells us of (firewall, sysctls) is found after this time at the latest.
const DRIFT_CHECK: Duration = Duration::from_secs(30);
/// Events of one cause come together; pods start in bursts.
const SETTLE: Duration = Duration::from_millis(100);
/// A pass that repeats the same operations waits this long: something undoes them, or they fail.
const FUTILE_PAUSE: Duration = Duration::from_secs(5);

/// Flags and environment that decide the host's state.
#[derive(Debug, Clone, PartialEq)]
pub struct HostConfig {
    pub node: Text,
    /// `--iface`.
    pub tunnel_interface: Text,
    /// `--dpdk-tunnel-iface`.
    pub userspace_interface: Text,
    /// `--host-tunnel-src`.
    pub allow_host_masks: bool,
    /// Environment `POD_IP`.
    pub pod_ip: Option<IpAddr>,
    /// `--mtu`; 0 derives it.
    pub mtu: u32,
    pub encap_checksum: bool,
    pub network_type: NetworkType,
    pub vxlan_tx_off: bool,
    pub cluster_router: Text,
    pub service_cidrs: Vec<Cidr>,
    /// `--mirror-iface`, `--enable-mirror`.
    pub mirror: (Text, MirrorScope),
    /// `--external-gateway-switch` and the key of the ConfigMap.
    pub external: (Text, Text),
}

/// How the last pass went.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostStatus {
    /// `None` until the first pass is over, then the first failure of the last one.
    pub result: Option<Result<(), String>>,
}

/// See the module. Runs until dropped.
pub struct HostLoop {
    pub config: HostConfig,
    pub cluster: Arc<Cluster>,
    pub executor: Executor,
    pub facts: watch::Sender<NodeFacts>,
    pub status: watch::Sender<HostStatus>,
    memory: Memory,
}

/// What passes remember of each other.
#[derive(Default)]
struct Memory {
    encap: Option<Encap>,
    /// Names of the kernel's links.
    links: BTreeSet<Text>,
    firewall: Firewall,
    /// What the firewall was read for; another wish makes it be read anew.
    firewall_wanted: Option<crate::host::Firewall>,
    /// External egress gateways that no link reaches.
    unreachable: Vec<IpAddr>,
    last_ops: Vec<HostOp>,
    last_problem: String,
}

/// Why a pass runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Event,
    DriftCheck,
}

impl HostLoop {
    pub fn new(
        config: HostConfig,
        cluster: Arc<Cluster>,
        executor: Executor,
        facts: watch::Sender<NodeFacts>,
    ) -> Self {
        let status = watch::Sender::new(HostStatus::default());
        HostLoop { config, cluster, executor, facts, status, memory: Memory::default() }
    }

    /// Runs for ever.
    pub async fn run(mut self) -> Result<(), kernel::Error> {
        let mut cluster = self.cluster.changes();
        let mut vswitch = self.executor.vswitch().changes();
        let mut monitor = Monitor::open(&Place::Host)?;
        let mut ticks = tokio::time::interval(DRIFT_CHECK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let cause = tokio::select! {
                _ = ticks.tick() => Cause::DriftCheck,
                _ = cluster.changed() => Cause::Event,
                _ = vswitch.changed() => Cause::Event,
                changes = monitor.changed() => changes.map(|_| Cause::Event)?,
            };
            tokio::time::sleep(SETTLE).await;
            cluster.mark_unchanged();
            vswitch.mark_unchanged();
            if self.executor.vswitch().connection() == Connection::Down || !self.is_synced() {
                continue;
            }
            let futile = self.pass(cause).await;
            if futile {
                tokio::time::sleep(FUTILE_PAUSE).await;
            }
        }
    }

    /// Before all lists are in, absent objects mean nothing, and nothing may be removed: rules of
    /// egress gateways are for the pods of this node.
    fn is_synced(&self) -> bool {
        const NEEDED: [Kind; 5] =
            [Kind::Node, Kind::Subnet, Kind::ExternalGateway, Kind::Pod, Kind::ServiceCidr];
        self.cluster.read(|s| NEEDED.iter().all(|k| s.synced.contains(k)))
    }

    /// One pass; `true` when it repeated what the one before did in vain.
    async fn pass(&mut self, cause: Cause) -> bool {
        let result = self.try_pass(cause).await;
        let problem = result.as_ref().err().cloned().unwrap_or_default();
        if problem != self.memory.last_problem {
            match problem.as_str() {
                "" => tracing::info!("host state is as wanted again"),
                problem => tracing::warn!(%problem, "host state is not as wanted"),
            }
            self.memory.last_problem = problem;
        }
        let futile = matches!(result, Ok(false) | Err(_)) && !self.memory.last_ops.is_empty();
        let result = Some(result.map(|_| ()));
        self.status.send_if_modified(|status| {
            let changed = status.result != result;
            status.result = result;
            changed
        });
        futile
    }

    /// `Ok(false)`: the same operations as in the pass before.
    async fn try_pass(&mut self, cause: Cause) -> Result<bool, String> {
        let kernel = within(Place::Host, || dump(&Place::Host)).await.map_err(text)?;
        let mut problem = self.choose_encap(&kernel).err();
        self.memory.links = kernel.links.iter().map(|l| l.name.clone()).collect();
        let mut wanted = desired_host(&self.view()?);
        if self.read_firewall(cause, &wanted).await.map_err(text)? {
            // kube-proxy's sets decide rules.
            wanted = desired_host(&self.view()?);
        }
        let (executor, firewall) = (self.executor.clone(), self.memory.firewall.clone());
        let looked_at = wanted.clone();
        let observed = within(Place::Host, move || observe_host(&executor, &looked_at, &firewall));
        let observed = observed.await.map_err(text)?;
        self.report_unreachable(&wanted, &observed);
        let ops = diff_host(&wanted, &observed);
        if ops.is_empty() {
            self.memory.last_ops = ops;
            return problem.map_or(Ok(true), Err);
        }
        tracing::debug!(operations = ?ops, "host operations");
        let futile = ops == self.memory.last_ops;
        let count = ops.len();
        for op in &ops {
            if matches!(op, HostOp::RestoreIpsets(_) | HostOp::RestoreIptables { .. }) {
                self.memory.firewall_wanted = None;
            }
        }
        self.memory.last_ops = ops.clone();
        for error in self.executor.apply_each(ops).await {
            problem.get_or_insert(error.to_string());
        }
        match problem {
            Some(problem) => Err(problem),
            None => {
                tracing::info!(operations = count, "host state changed");
                Ok(!futile)
            }
        }
    }

    /// Traffic for such a gateway takes the node's usual way meanwhile.
    fn report_unreachable(&mut self, wanted: &HostState, observed: &Observed) {
        let egress = wanted.egress.as_ref();
        let lost = egress.map(|e| unreachable_gateways(e, observed)).unwrap_or_default();
        if lost != self.memory.unreachable {
            tracing::warn!(gateways = ?lost, "external egress gateways on no link of this node");
            self.memory.unreachable = lost;
        }
    }

    /// Chooses the tunnel endpoint; an unusable choice keeps the endpoint that works.
    fn choose_encap(&mut self, kernel: &KernelDump) -> Result<(), String> {
        let node = self.cluster.read(|s| s.store.shared::<Node>(&self.config.node));
        let Some(node) = node else {
            return Err(format!("node {} does not exist", self.config.node));
        };
        let config = &self.config;
        let userspace = node.labels.get(label::OVS_DP_TYPE).is_some_and(|t| &**t == "userspace");
        let request = EncapRequest {
            iface_flag: config.tunnel_interface.clone(),
            annotation: node.annotations.get(annotation::TUNNEL_INTERFACE).cloned(),
            dpdk_link: userspace.then(|| config.userspace_interface.clone()),
            allow_host_masks: config.allow_host_masks,
            pod_ip: config.pod_ip,
            internal_ips: node.internal_ips,
            links: kernel.links.clone(),
            addresses: kernel.addresses.clone(),
            routes: kernel.routes.clone(),
            bridge_of: self.executor.vswitch().read(vendor_bridge_ports),
        };
        let encap = choose_encap(&request).map_err(|invalid| invalid.message)?;
        if self.memory.encap.as_ref() != Some(&encap) {
            tracing::info!(link = %encap.link, ip = %encap.ip, mtu = encap.link_mtu, "tunnel endpoint");
            self.memory.encap = Some(encap);
        }
        Ok(())
    }

    /// Builds the planner's input and publishes what CNI requests need of it.
    fn view(&self) -> Result<HostView, String> {
        let config = &self.config;
        let encap = self.memory.encap.clone();
        let mtu = encap.as_ref().map(|e| overlay_mtu(config.mtu, config.network_type, e));
        let datapath = self.executor.vswitch().read(datapath);
        self.facts.send_if_modified(|facts| {
            let fresh = NodeFacts {
                datapath: datapath.unwrap_or(Datapath::System),
                overlay_mtu: mtu.filter(|_| datapath.is_some()),
                ..facts.clone()
            };
            let changed = *facts != fresh;
            *facts = fresh;
            changed
        });
        let kube_proxy_sets: BTreeSet<Text> =
            parse_set_names(self.memory.firewall.ipsets.as_deref().unwrap_or_default())
                .into_iter()
                .filter(|name| name.starts_with("KUBE-"))
                .collect();
        let ovs = self.executor.vswitch().read(observe_ovs);
        self.cluster.read(|state| {
            let node = state.store.get::<Node>(&config.node);
            let node = node.ok_or_else(|| format!("node {} does not exist", config.node))?;
            Ok(HostView {
                node: config.node.clone(),
                internal_ips: node.internal_ips,
                other_nodes: other_nodes(state, &config.node),
                join: parse_join(&node.annotations).map_err(|invalid| invalid.message)?,
                cluster_router: config.cluster_router.clone(),
                subnets: subnets(state),
                local_pods: local_pods(state),
                nics: nics(state, &config.node, &ovs.ports),
                mirror: Some(self.mirror(&ovs)),
                external: external(state, node, &config.external),
                service_cidrs: service_cidrs(state, &config.service_cidrs),
                overlay_mtu: mtu.unwrap_or(1400),
                encap,
                encap_checksum: config.encap_checksum,
                network_type: config.network_type,
                datapath: datapath.unwrap_or(Datapath::System),
                ic_gateway: is_true(&node.labels, label::IC_GW),
                vxlan_tx_off: config.vxlan_tx_off,
                kube_proxy_sets,
            })
        })
    }

    /// An existing link is taken as it is; without one Open vSwitch makes it.
    fn mirror(&self, ovs: &ObservedOvs) -> MirrorView {
        let (link, scope) = self.config.mirror.clone();
        let kind = match ovs.ports.get(&link) {
            Some(port) => port.kind,
            None if self.memory.links.contains(&link) => OvsPortKind::System,
            None => OvsPortKind::Internal,
        };
        MirrorView { link, kind, scope }
    }

    /// Listing the firewall forks four programs, so it is done for a reason only.
    async fn read_firewall(
        &mut self,
        cause: Cause,
        wanted: &HostState,
    ) -> Result<bool, kernel::Error> {
        let Some(wanted) = &wanted.firewall else { return Ok(false) };
        if self.memory.firewall_wanted.as_ref() == Some(wanted) && cause == Cause::Event {
            return Ok(false);
        }
        let (executor, families) =
            (self.executor.clone(), wanted.tables.families().collect::<Vec<_>>());
        let read = tokio::task::spawn_blocking(move || observe_firewall(&executor, &families));
        let name: Text = "host".into();
        self.memory.firewall = read.await.map_err(|e| interrupted(&name, e))?;
        self.memory.firewall_wanted = Some(wanted.clone());
        Ok(true)
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn is_true(labels: &Map, key: &str) -> bool {
    labels.get(key).is_some_and(|v| &**v == "true")
}

fn other_nodes(state: &State, own: &str) -> BTreeSet<IpAddr> {
    let nodes = state.store.iter::<Node>().filter(|n| *n.name != *own);
    nodes.flat_map(|n| n.internal_ips.iter().map(|(_, ip)| *ip).collect::<Vec<_>>()).collect()
}

/// `--service-cluster-ip-range` and what ServiceCIDRs add to it.
fn service_cidrs(state: &State, flag: &[Cidr]) -> Vec<Cidr> {
    let mut all: BTreeSet<Cidr> = flag.iter().map(|cidr| cidr.network()).collect();
    all.extend(state.store.iter::<ServiceCidr>().flat_map(|of| of.ranges.iter().copied()));
    all.into_iter().collect()
}

/// The external network, on a labelled node while the ConfigMap enables it.
fn external(state: &State, node: &Node, (switch, config): &(Text, Text)) -> Option<ExternalView> {
    let gateway = state.store.get::<ExternalGateway>(config)?;
    let here =
        gateway.enabled && !gateway.nic.is_empty() && is_true(&node.labels, label::EXTERNAL_GW);
    here.then(|| ExternalView { network: switch.clone(), nic: gateway.nic.clone() })
}

/// Addresses of the node's pods in subnets with policy routing. Others do not concern the host.
fn local_pods(state: &State) -> Vec<LocalPod> {
    const SUFFIX: &str = ".kubernetes.io/logical_switch";
    let routed =
        |name: &Text| state.store.get::<Subnet>(name).is_some_and(|s| s.policy_routing.is_some());
    if !state.store.iter::<Subnet>().any(|s| s.policy_routing.is_some()) {
        return Vec::new();
    }
    let pods = state.store.iter::<Pod>().filter(|p| !p.host_network && p.life != PodLife::Ended);
    let mut found: Vec<LocalPod> = pods
        .flat_map(|pod| {
            let switches = pod.annotations.iter().filter(|(_, subnet)| routed(subnet));
            switches.filter_map(|(key, subnet)| {
                let provider = key.strip_suffix(SUFFIX)?;
                pod.annotation(provider, suffix::ALLOCATED).filter(|v| &***v == "true")?;
                let text = pod.annotation(provider, suffix::IP_ADDRESS)?;
                let addresses = DualStack::parse_addresses(text).ok()?;
                Some(LocalPod { subnet: subnet.clone(), addresses })
            })
        })
        .collect();
    found.sort();
    found
}

fn subnets(state: &State) -> Vec<SubnetView> {
    let shared = |key: &Text| state.store.shared::<Subnet>(key);
    let keys = state.store.keys(Kind::Subnet);
    keys.filter_map(shared)
        .map(|subnet| {
            let status = state.subnet_status.get(&subnet.name).cloned().unwrap_or_default();
            SubnetView {
                active_gateways: status.active_gateways,
                nat_policy: status.nat_policy,
                subnet,
            }
        })
        .collect()
}

/// Join gateways of the node, for the health check of ovn0.
pub fn join_gateways(state: &State, node: &str) -> DualStack<IpAddr> {
    let node = state.store.get::<Node>(node);
    let join = node.and_then(|n| parse_join(&n.annotations).ok().flatten());
    join.map(|j| j.gateways).unwrap_or_default()
}
