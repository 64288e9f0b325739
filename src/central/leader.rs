//! Labels the pod of the NB, SB and northd leader, so that the Services `ovn-nb`, `ovn-sb` and
//! `ovn-northd` select it; frees northd's lock from dead hosts; stops a split brain.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::net::TcpStream;

use super::{
    config::{CentralConfig, Compaction, Role},
    database::Central,
    members,
    rpc::{self, Rpc, RpcError},
    status::Serving,
    supervise::{StopSignal, is_stopping, pause, stopped},
};

const CONTROL_LIMIT: Duration = Duration::from_secs(1);
const COMPACT_LIMIT: Duration = Duration::from_secs(60);
const DIAL_LIMIT: Duration = Duration::from_secs(3);
const API_LIMIT: Duration = Duration::from_secs(10);
/// Rounds that northd may be away, or that two leaders may show, before something is done: raft
/// shows two leaders for up to one election timer when a network splits.
const STRIKES: u32 = 3;
/// Labels are written again without a change after this many rounds, against foreign edits.
const REPEAT: u32 = 12;

#[derive(Debug, thiserror::Error)]
pub enum LeaderError {
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error("Kubernetes: {0}")]
    Kubernetes(Box<kube::Error>),
    #[error("kubeconfig {path}: {error}")]
    Kubeconfig { path: String, error: String },
    #[error("Kubernetes did not answer within 10 s")]
    Slow,
    /// Serving on would let both halves accept writes; a restart decides anew.
    #[error("{database}: {ip} leads another cluster ({theirs}, ours is {ours})")]
    SplitBrain { database: &'static str, ip: IpAddr, theirs: String, ours: String },
}

impl From<kube::Error> for LeaderError {
    fn from(error: kube::Error) -> Self {
        LeaderError::Kubernetes(Box::new(error))
    }
}

/// Our pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodName {
    pub namespace: String,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub pod: PodName,
    pub interval: Duration,
    pub compaction: Compaction,
}

impl Plan {
    pub fn of(config: &CentralConfig, pod: PodName) -> Self {
        Plan { pod, interval: config.leader_check, compaction: config.compaction }
    }
}

/// Who leads on this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leads {
    pub northbound: bool,
    pub southbound: bool,
    pub northd: bool,
}

impl Leads {
    /// The labels of the pod; the Services select on "true".
    pub fn labels(self) -> BTreeMap<&'static str, &'static str> {
        let text = |b: bool| if b { "true" } else { "false" };
        BTreeMap::from([
            ("ovn-nb-leader", text(self.northbound)),
            ("ovn-sb-leader", text(self.southbound)),
            ("ovn-northd-leader", text(self.northd)),
        ])
    }
}

/// A client by kubeconfig, or by the account of the pod.
pub async fn client(kubeconfig: Option<&str>) -> Result<Client, LeaderError> {
    let Some(path) = kubeconfig else { return Ok(Client::try_default().await?) };
    let failed = |error| LeaderError::Kubeconfig { path: path.to_owned(), error };
    let options = kube::config::KubeConfigOptions::default();
    let file = kube::config::Kubeconfig::read_from(path);
    let file = file.map_err(|e| failed(e.to_string()))?;
    let config = kube::Config::from_custom_kubeconfig(file, &options).await;
    Ok(Client::try_from(config.map_err(|e| failed(e.to_string()))?)?)
}

/// What is remembered between rounds.
#[derive(Debug, Default)]
struct Memory {
    labelled: Option<Leads>,
    rounds: u32,
    northd_away: u32,
    split: u32,
}

/// Checks in every interval until the stop signal. A lasting split brain ends the process, so that
/// the container restarts and decides anew with all members in sight.
pub async fn run(
    central: Arc<Central>,
    plan: Plan,
    mut client: Option<Client>,
    mut stop: StopSignal,
) {
    let mut memory = Memory::default();
    while !is_stopping(&stop) {
        if client.is_none() {
            match self::client(None).await {
                Ok(connected) => client = Some(connected),
                Err(error) => tracing::warn!(%error, "no Kubernetes client, trying again"),
            }
        }
        if let Some(client) = &client {
            let result = tokio::select! {
                result = round(&central, &plan, client, &mut memory) => result,
                () = stopped(&mut stop) => return,
            };
            match result {
                Ok(()) => {}
                Err(error @ LeaderError::SplitBrain { .. }) if memory.split >= STRIKES => {
                    tracing::error!(%error, "split brain, giving up");
                    std::process::exit(1);
                }
                Err(error) => tracing::warn!(%error, "leader check"),
            }
        }
        if !pause(plan.interval, &mut stop).await {
            return;
        }
    }
}

async fn round(
    central: &Central,
    plan: &Plan,
    client: &Client,
    memory: &mut Memory,
) -> Result<(), LeaderError> {
    let (leads, serving) = observe(central).await?;
    memory.rounds = memory.rounds.wrapping_add(1);
    if memory.labelled != Some(leads) || memory.rounds.is_multiple_of(REPEAT) {
        label(client, &plan.pod, leads).await?;
        if memory.labelled != Some(leads) {
            tracing::info!(?leads, pod = plan.pod.name, "labelled");
        }
        memory.labelled = Some(leads);
    }
    if leads.southbound {
        tend_northd(central, client, &plan.pod.namespace, memory).await?;
    }
    check_split(central, &serving, memory).await?;
    if plan.compaction == Compaction::EveryRound {
        compact(central).await;
    }
    Ok(())
}

/// Asks the three daemons of this container. One that does not answer skips the round: labels stay
/// as they are, and readiness takes the pod out of the Services.
pub async fn observe(central: &Central) -> Result<(Leads, [Option<Serving>; 2]), LeaderError> {
    let mut serving = [None, None];
    for (slot, role) in serving.iter_mut().zip(Role::BOTH) {
        *slot = members::observe_local(&central.paths, role, members::LIMIT).await?;
    }
    let pidfile = central.paths.run.join("ovn-northd.pid");
    let northd = rpc::control_daemon(&pidfile, "status", &[], CONTROL_LIMIT).await?;
    let leads = |s: &Option<Serving>| s.as_ref().is_some_and(|s| s.leader && s.connected);
    Ok((
        Leads {
            northbound: leads(&serving[0]),
            southbound: leads(&serving[1]),
            northd: northd.contains("active"),
        },
        serving,
    ))
}

async fn label(client: &Client, pod: &PodName, leads: Leads) -> Result<(), LeaderError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    let patch = Patch::Merge(json!({ "metadata": { "labels": leads.labels() } }));
    let parameters = PatchParams::default();
    let patched = api.patch_metadata(&pod.name, &parameters, &patch);
    tokio::time::timeout(API_LIMIT, patched).await.map_err(|_| LeaderError::Slow)??;
    Ok(())
}

/// Frees the SB lock of northd when its holder is away: the server itself would wait for the
/// inactivity probe, minutes with the default interval.
///
/// Upstream dials the NB raft port of the active northd's pod. That port is closed on a standalone
/// server, which so lost its lock every 15 s; the SB client port is open in both modes.
async fn tend_northd(
    central: &Central,
    client: &Client,
    namespace: &str,
    memory: &mut Memory,
) -> Result<(), LeaderError> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    let parameters = ListParams::default().labels("kubernetes.io/service-name=ovn-northd");
    let listed = tokio::time::timeout(API_LIMIT, api.list(&parameters)).await;
    let slices = listed.map_err(|_| LeaderError::Slow)??;
    let port = central.config.southbound.client;
    let mut alive = false;
    for ip in ready_addresses(&slices.items, central.config.local) {
        let dial = TcpStream::connect(SocketAddr::new(ip, port));
        alive |= tokio::time::timeout(DIAL_LIMIT, dial).await.is_ok_and(|stream| stream.is_ok());
    }
    memory.northd_away = if alive { 0 } else { memory.northd_away + 1 };
    if memory.northd_away < STRIKES {
        return Ok(());
    }
    memory.northd_away = 0;
    tracing::warn!("no northd is active, freeing its lock");
    steal_lock(central).await?;
    Ok(())
}

/// Takes the lock and drops it by closing the connection; the next northd in line gets it. The
/// local socket needs neither brackets for IPv6 nor a guess about TLS (upstream BUGs).
pub async fn steal_lock(central: &Central) -> Result<(), RpcError> {
    let socket = central.paths.socket(Role::Southbound);
    let mut rpc = Rpc::local(&socket, CONTROL_LIMIT).await?;
    rpc.call("steal", json!(["ovn_northd"])).await.map(|_| ())
}

/// Ready endpoints of the family of our address.
fn ready_addresses(slices: &[EndpointSlice], local: IpAddr) -> Vec<IpAddr> {
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter());
    endpoints
        .filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)))
        .flat_map(|e| e.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok()))
        .filter(|ip| ip.is_ipv4() == local.is_ipv4())
        .collect()
}

/// Two leaders of one cluster are a matter of an election timer; two clusters are not.
async fn check_split(
    central: &Central,
    serving: &[Option<Serving>; 2],
    memory: &mut Memory,
) -> Result<(), LeaderError> {
    for (ours, role) in serving.iter().zip(Role::BOTH) {
        let Some(ours) = ours.as_ref().filter(|s| s.leader && s.connected) else { continue };
        for ip in central.config.peers() {
            let theirs = members::observe_member(central, role, ip).await.ok().flatten();
            if let Some((ours, theirs)) = theirs.and_then(|theirs| other_cluster(ours, theirs)) {
                memory.split += 1;
                return Err(LeaderError::SplitBrain {
                    database: role.database(),
                    ip,
                    theirs,
                    ours,
                });
            }
        }
    }
    memory.split = 0;
    Ok(())
}

fn other_cluster(ours: &Serving, theirs: Serving) -> Option<(String, String)> {
    let (ours, cluster) = (ours.cluster.clone()?, theirs.cluster.clone()?);
    (theirs.leader && theirs.connected && ours != cluster).then_some((ours, cluster))
}

async fn compact(central: &Central) {
    for role in Role::BOTH {
        let socket = central.paths.control(role);
        let arguments = [role.database()];
        match rpc::control(&socket, "ovsdb-server/compact", &arguments, COMPACT_LIMIT).await {
            Ok(_) => {}
            Err(error) if error.to_string().contains("not storing a duplicate snapshot") => {}
            Err(error) => tracing::warn!(database = role.database(), %error, "not compacted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving(cluster: &str, leader: bool) -> Serving {
        let (connected, server) = (true, None);
        Serving { clustered: true, connected, leader, cluster: Some(cluster.into()), server }
    }

    #[test]
    fn labels_are_true_or_false_and_never_absent() {
        let leads = Leads { northbound: true, southbound: false, northd: false };
        let labels = leads.labels();
        assert_eq!(labels["ovn-nb-leader"], "true");
        assert_eq!(labels["ovn-sb-leader"], "false");
        assert_eq!(labels.len(), 3);
    }

    #[test]
    fn two_leaders_of_one_cluster_are_no_split() {
        assert_eq!(other_cluster(&serving("c", true), serving("c", true)), None);
        assert_eq!(other_cluster(&serving("c", true), serving("d", false)), None);
        assert!(other_cluster(&serving("c", true), serving("d", true)).is_some());
    }

    #[test]
    fn only_ready_endpoints_of_our_family_count() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4", "metadata": {}, "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
                {"addresses": ["fd00::1"], "conditions": {"ready": true}}]}))
        .unwrap();
        let all = ready_addresses(&[slice], "10.0.0.9".parse().unwrap());
        assert_eq!(all, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    }
}
