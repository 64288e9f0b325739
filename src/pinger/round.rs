//! One round of questions, and its results as log lines and metrics.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use k8s_openapi::api::{apps::v1::DaemonSet, core::v1 as core};
use kube::{Api, Client, api::ListParams};

use super::{
    dns::Resolver,
    local::{Local, LocalError},
    metrics::{
        API_SERVER, EXTERNAL, EXTERNAL_DNS, INCONSISTENT_PORTS, INTERNAL_DNS, NODE_PINGS,
        OVN_CONTROLLER, OVS, POD, Ping, Verdict,
    },
    probe::{connect, ping},
    report::{samples, unbound},
    target::{self, Echoes, Peer, PortCheck, Transport},
};
use crate::{
    net::Family,
    telemetry::{Recorder, Snapshot},
};

/// Of pods; a reply that takes longer is lost.
const POD_PATIENCE: Duration = Duration::from_secs(1);
const NODE_PATIENCE: Duration = Duration::from_secs(30);
const EXTERNAL_PATIENCE: Duration = Duration::from_secs(5);
const DNS_PATIENCE: Duration = Duration::from_secs(10);
const API_PATIENCE: Duration = Duration::from_secs(10);
/// Peers asked at the same time; upstream asks one after the other.
const WIDTH: usize = 8;
/// A port that appeared a moment ago is not bound yet; it is looked at again after this time.
const SETTLING: Duration = Duration::from_secs(1);

/// Who asks.
#[derive(Debug, Clone)]
pub struct Own {
    pub node: String,
    pub node_address: String,
    pub address: String,
    pub families: Vec<Family>,
}

/// What to ask.
#[derive(Debug, Clone)]
pub struct Plan {
    pub namespace: String,
    pub daemon_set: String,
    pub internal_dns: String,
    /// Empty: not asked.
    pub external_dns: String,
    pub external_addresses: Vec<IpAddr>,
    pub port_checks: Vec<PortCheck>,
    /// TCP and UDP port of peers to ask too.
    pub peer_ports: Option<(u16, u16)>,
    /// `None`: the cluster's network is not ours.
    pub local: Option<Local>,
    pub resolver: Resolver,
}

/// How a round went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    pub failures: u32,
}

impl Outcome {
    fn note<T, E>(&mut self, result: &Result<T, E>) {
        self.failures += u32::from(result.is_err());
    }
}

/// Series of targets, so that those of vanished targets go (upstream keeps them for ever).
type Seen = BTreeSet<Vec<String>>;

pub struct Pinger {
    pub own: Own,
    pub plan: Plan,
    pub client: Client,
    pub recorder: Recorder,
    /// OVS metrics; `None` in a job.
    pub ovs: Option<Snapshot>,
    failed_requests: u64,
    pods: Seen,
    nodes: Seen,
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

impl Pinger {
    pub fn new(
        own: Own,
        plan: Plan,
        client: Client,
        recorder: Recorder,
        ovs: Option<Snapshot>,
    ) -> Self {
        let (pods, nodes) = (Seen::new(), Seen::new());
        Pinger { own, plan, client, recorder, ovs, failed_requests: 0, pods, nodes }
    }

    /// All questions once.
    pub async fn run(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        if let Some(local) = self.plan.local.clone() {
            self.ask_node(&local, &mut outcome).await;
        }
        outcome.note(&self.ask_api_server().await);
        self.ask_pods(&mut outcome).await;
        self.ask_nodes(&mut outcome).await;
        let (internal, external) = (self.plan.internal_dns.clone(), self.plan.external_dns.clone());
        outcome.note(&self.ask_dns(&internal, &INTERNAL_DNS).await);
        if !external.is_empty() {
            outcome.note(&self.ask_dns(&external, &EXTERNAL_DNS).await);
        }
        for check in &self.plan.port_checks {
            if self.own.families.contains(&Family::of(check.address)) {
                outcome.note(&ask_port(check).await);
            }
        }
        outcome.note(&self.ask_outside().await);
        outcome
    }

    fn verdict<E: std::fmt::Display>(&self, of: &Verdict, result: &Result<(), E>) {
        let good = f64::from(u8::from(result.is_ok()));
        self.recorder.set(&of.good, &[&self.own.node], good);
        self.recorder.set(&of.bad, &[&self.own.node], 1.0 - good);
    }

    async fn ask_node(&mut self, local: &Local, outcome: &mut Outcome) {
        // Both are asked; upstream stops at the first that fails.
        let database = local.daemon_answers(&local.database_pid).await;
        let switch = local.daemon_answers(&local.vswitchd_pid).await;
        let ovs = database.and(switch);
        match &ovs {
            Ok(()) => tracing::info!("ovsdb-server and ovs-vswitchd are up"),
            Err(error) => tracing::error!(%error, "openvswitch is down"),
        }
        self.verdict(&OVS, &ovs);
        outcome.note(&ovs);
        let controller = local.daemon_answers(&local.controller_pid).await;
        match &controller {
            Ok(()) => tracing::info!("ovn-controller is up"),
            Err(error) => tracing::error!(%error, "ovn-controller is down"),
        }
        self.verdict(&OVN_CONTROLLER, &controller);
        outcome.note(&controller);
        match self.ask_bindings(local).await {
            Ok(missing) => {
                self.recorder.set(&INCONSISTENT_PORTS, &[&self.own.node], missing as f64);
                outcome.failures += u32::from(missing > 0);
            }
            Err(error) => {
                tracing::error!(%error, "cannot compare ports with the southbound database");
                outcome.failures += 1;
            }
        }
        if let Some(snapshot) = &self.ovs {
            snapshot.replace(samples(&local.observe(&mut self.failed_requests).await));
        }
    }

    async fn ask_bindings(&self, local: &Local) -> Result<usize, LocalError> {
        let (ovs, southbound) = local.ports(&self.own.node).await?;
        tracing::info!("ports in ovs: {}", ovs.join(", "));
        tracing::info!("ports in sb: {}", southbound.join(", "));
        let mut missing = unbound(&ovs, &southbound);
        if !missing.is_empty() {
            tokio::time::sleep(SETTLING).await;
            let (ovs, southbound) = local.ports(&self.own.node).await?;
            let still = unbound(&ovs, &southbound);
            missing.retain(|port| still.contains(port));
        }
        if !missing.is_empty() {
            tracing::error!("ports in ovs that are not bound: {}", missing.join(", "));
        }
        Ok(missing.len())
    }

    async fn ask_api_server(&self) -> Result<(), String> {
        let start = Instant::now();
        let asked = tokio::time::timeout(API_PATIENCE, self.client.apiserver_version()).await;
        let result = match asked {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", API_PATIENCE.as_secs())),
        };
        self.verdict(&API_SERVER, &result);
        match &result {
            Ok(()) => {
                let took = ms(start);
                tracing::info!("connect to apiserver success in {took:.2}ms");
                if let Some(latency) = &API_SERVER.latency {
                    self.recorder.observe(latency, &[&self.own.node], took);
                }
            }
            Err(error) => tracing::error!("failed to connect to apiserver: {error}"),
        }
        result
    }

    async fn ask_dns(&self, name: &str, verdict: &Verdict) -> Result<(), String> {
        let start = Instant::now();
        let lookup = self.plan.resolver.resolve(name, &self.own.families);
        let result = match tokio::time::timeout(DNS_PATIENCE, lookup).await {
            Ok(Ok(addresses)) => {
                let took = ms(start);
                let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                tracing::info!("resolve dns {name} to [{}] in {took:.2}ms", list.join(" "));
                if let Some(latency) = &verdict.latency {
                    self.recorder.observe(latency, &[&self.own.node], took);
                }
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", DNS_PATIENCE.as_secs())),
        };
        if let Err(error) = &result {
            tracing::error!("failed to resolve dns {name}: {error}");
        }
        self.verdict(verdict, &result);
        result
    }

    async fn ask_pods(&mut self, outcome: &mut Outcome) {
        let pods = match self.list_pods().await {
            Ok(pods) => target::pods(&pods, &self.own.families),
            Err(error) => {
                tracing::error!(%error, "cannot list the pods of {}", self.plan.daemon_set);
                outcome.failures += 1;
                return;
            }
        };
        let own = &self.own;
        let labels = |peer: &Peer| pod_labels(own, peer);
        let asked = self.ask_peers("pod", pods, POD_PATIENCE).await;
        let seen = self.record(asked, &POD, labels, outcome);
        forget(&self.recorder, &POD, &self.pods, &seen);
        self.pods = seen;
    }

    async fn ask_nodes(&mut self, outcome: &mut Outcome) {
        let nodes: Api<core::Node> = Api::all(self.client.clone());
        let nodes = match nodes.list(&ListParams::default()).await {
            Ok(nodes) => target::nodes(&nodes.items, &self.own.families),
            Err(error) => {
                tracing::error!(%error, "cannot list the nodes");
                outcome.failures += 1;
                return;
            }
        };
        let own = &self.own;
        let labels = |peer: &Peer| node_labels(own, peer);
        let asked = self.ask_peers("node", nodes, NODE_PATIENCE).await;
        let seen = self.record(asked, &NODE_PINGS, labels, outcome);
        forget(&self.recorder, &NODE_PINGS, &self.nodes, &seen);
        self.nodes = seen;
    }

    async fn list_pods(&self) -> Result<Vec<core::Pod>, kube::Error> {
        let sets: Api<DaemonSet> = Api::namespaced(self.client.clone(), &self.plan.namespace);
        let set = sets.get(&self.plan.daemon_set).await?;
        let pods: Api<core::Pod> = Api::namespaced(self.client.clone(), &self.plan.namespace);
        let params = ListParams::default().labels(&target::selector(&set));
        Ok(pods.list(&params).await?.items)
    }

    /// Pings (and asks the check ports of) all peers, a few at a time.
    async fn ask_peers(
        &self,
        kind: &'static str,
        peers: Vec<Peer>,
        patience: Duration,
    ) -> Vec<(Peer, Result<Echoes, String>)> {
        let ports = self.plan.peer_ports;
        let ask = |peer: Peer| async move {
            let mut closed = None;
            for (transport, port) in
                ports.iter().flat_map(|(tcp, udp)| [(Transport::Tcp, *tcp), (Transport::Udp, *udp)])
            {
                let result = connect(transport, SocketAddr::new(peer.address, port)).await;
                let Peer { name, address, .. } = &peer;
                match result {
                    Ok(()) => {
                        tracing::info!(
                            "{transport} connectivity to {kind} {name} {address} success"
                        );
                    }
                    Err(error) => {
                        tracing::error!(
                            "{transport} connectivity to {kind} {name} {address} failed: {error}"
                        );
                        closed = Some(error);
                    }
                }
            }
            let echoes = ping(peer.address, patience).await.map_err(|e| e.to_string());
            (peer, closed, echoes)
        };
        let mut asked = stream::iter(peers).map(ask).buffered(WIDTH);
        let mut results = Vec::new();
        while let Some((peer, closed, echoes)) = asked.next().await {
            let Peer { name, address, .. } = &peer;
            match &echoes {
                Ok(echoes) => tracing::info!(
                    "ping {kind}: {name} {address}, count: {}, loss count {}, average rtt {:.2}ms",
                    echoes.sent,
                    echoes.lost(),
                    echoes.mean_ms
                ),
                Err(error) => tracing::error!("cannot ping {kind} {name} {address}: {error}"),
            }
            let result = match closed {
                Some(error) if echoes.as_ref().is_ok_and(|e| e.lost() == 0) => {
                    results.push((peer.clone(), echoes));
                    Err(error)
                }
                _ => echoes,
            };
            results.push((peer, result));
        }
        results
    }

    fn record(
        &self,
        asked: Vec<(Peer, Result<Echoes, String>)>,
        family: &Ping,
        labels: impl Fn(&Peer) -> Vec<String>,
        outcome: &mut Outcome,
    ) -> Seen {
        let mut seen = Seen::new();
        for (peer, result) in asked {
            let labels = labels(&peer);
            match result {
                Ok(echoes) => {
                    self.record_echoes(family, &labels, echoes);
                    outcome.failures += u32::from(echoes.lost() > 0);
                }
                Err(_) => outcome.failures += 1,
            }
            seen.insert(labels);
        }
        seen
    }

    fn record_echoes(&self, family: &Ping, labels: &[String], echoes: Echoes) {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        if echoes.received > 0 {
            self.recorder.observe(&family.latency, &labels, echoes.mean_ms);
        }
        self.recorder.add(&family.lost, &labels, f64::from(echoes.lost()));
        if let Some(sent) = &family.sent {
            self.recorder.add(sent, &labels, f64::from(echoes.sent));
        }
    }

    /// Stops at the first address that fails.
    async fn ask_outside(&self) -> Result<(), String> {
        for address in &self.plan.external_addresses {
            if !self.own.families.contains(&Family::of(*address)) {
                continue;
            }
            let echoes = ping(*address, EXTERNAL_PATIENCE).await.map_err(|error| {
                tracing::error!("cannot ping external address {address}: {error}");
                error.to_string()
            })?;
            tracing::info!(
                "ping external address: {address}, total count: {}, loss count {}, average rtt {:.2}ms",
                echoes.sent,
                echoes.lost(),
                echoes.mean_ms
            );
            let Own { node, node_address, address: own, .. } = &self.own;
            let labels = [node.clone(), node_address.clone(), own.clone(), address.to_string()];
            self.record_echoes(&EXTERNAL, &labels, echoes);
            if echoes.lost() > 0 {
                return Err(format!("{} of {} echoes lost", echoes.lost(), echoes.sent));
            }
        }
        Ok(())
    }
}

fn own_labels(own: &Own) -> [String; 3] {
    // Upstream's src_pod_ip carries the pod's name.
    [own.node.clone(), own.node_address.clone(), own.address.clone()]
}

/// `src_node_name`, `src_node_ip`, `src_pod_ip`, `target_node_name`, `target_node_ip`,
/// `target_pod_ip`
fn pod_labels(own: &Own, peer: &Peer) -> Vec<String> {
    let peer = [peer.node.clone(), peer.node_address.clone(), peer.address.to_string()];
    own_labels(own).into_iter().chain(peer).collect()
}

/// `src_node_name`, `src_node_ip`, `src_pod_ip`, `target_node_name`, `target_node_ip`
fn node_labels(own: &Own, peer: &Peer) -> Vec<String> {
    own_labels(own).into_iter().chain([peer.name.clone(), peer.address.to_string()]).collect()
}

async fn ask_port(check: &PortCheck) -> Result<(), String> {
    let target = SocketAddr::new(check.address, check.port);
    let result = connect(check.transport, target).await;
    // Upstream's words, which differ between the two.
    let what = match check.transport {
        Transport::Tcp => "targetIPPort",
        Transport::Udp => "target",
    };
    match &result {
        Ok(()) => tracing::info!("{} connectivity to {what} {target} success", check.transport),
        Err(error) => {
            tracing::error!("{} connectivity to {what} {target} failed: {error}", check.transport);
        }
    }
    result
}

fn forget(recorder: &Recorder, ping: &Ping, before: &Seen, now: &Seen) {
    for labels in before.difference(now) {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        for family in [&ping.latency, &ping.lost].into_iter().chain(&ping.sent) {
            recorder.remove(family, &labels);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bug_the_label_of_the_source_pod_is_its_address() {
        let own = Own {
            node: "n1".into(),
            node_address: "172.30.0.11".into(),
            address: "10.16.0.5".into(),
            families: Vec::new(),
        };
        let peer = Peer {
            name: "n2".into(),
            address: "172.30.0.12".parse().expect("an address"),
            node: "n2".into(),
            node_address: "172.30.0.12".into(),
        };
        let pod = ["n1", "172.30.0.11", "10.16.0.5", "n2", "172.30.0.12", "172.30.0.12"];
        assert_eq!(pod_labels(&own, &peer), pod);
        assert_eq!(
            node_labels(&own, &peer),
            ["n1", "172.30.0.11", "10.16.0.5", "n2", "172.30.0.12"]
        );
    }
}
