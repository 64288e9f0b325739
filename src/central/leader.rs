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
use tokio::sync::watch;

use super::{
    config::{CentralConfig, Compaction, Role},
    database::Central,
    members,
    rpc::{self, RpcError},
    status::Serving,
    supervise::{StopSignal, is_stopping, pause, stopped},
};
use crate::ovsdb::dial::{Answer, dial};

const CONTROL_LIMIT: Duration = Duration::from_secs(1);
const COMPACT_LIMIT: Duration = Duration::from_secs(60);
const DIAL_LIMIT: Duration = Duration::from_secs(3);
/// The host of the active northd is dialled this often, and may take this long to answer.
const GLANCE: Duration = Duration::from_millis(700);
const GLANCE_LIMIT: Duration = Duration::from_secs(1);
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
#[derive(Debug)]
struct Memory {
    labelled: Option<Leads>,
    rounds: u32,
    northd_away: u32,
    split: u32,
    /// For [`keep_northd`].
    northd_at: watch::Sender<Vec<IpAddr>>,
}

/// Checks in every interval until the stop signal. A lasting split brain ends the process, so that
/// the container restarts and decides anew with all members in sight.
pub async fn run(central: Arc<Central>, plan: Plan, client: Option<Client>, stop: StopSignal) {
    let (northd_at, active) = watch::channel(Vec::new());
    let memory = Memory { labelled: None, rounds: 0, northd_away: 0, split: 0, northd_at };
    let settling = plan.interval * STRIKES;
    tokio::select! {
        () = check(&central, plan, client, stop, memory) => {}
        () = keep_northd(&central, active, settling) => {}
    }
}

async fn check(
    central: &Central,
    plan: Plan,
    mut client: Option<Client>,
    mut stop: StopSignal,
    mut memory: Memory,
) {
    while !is_stopping(&stop) {
        if client.is_none() {
            match self::client(None).await {
                Ok(connected) => client = Some(connected),
                Err(error) => tracing::warn!(%error, "no Kubernetes client, trying again"),
            }
        }
        if let Some(client) = &client {
            let result = tokio::select! {
                result = round(central, &plan, client, &mut memory) => result,
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
    // Alone, there is nobody to take the lock instead.
    let replaceable = central.config.peers().next().is_some();
    if leads.southbound && !leads.northd && replaceable {
        tend_northd(central, client, &plan.pod.namespace, memory).await?;
    } else {
        memory.northd_away = 0;
        memory.northd_at.send_replace(Vec::new());
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

/// Frees the SB lock of northd when its holder is away or hangs: the server itself would wait for
/// the inactivity probe, minutes with the default interval.
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
    let active = ready_addresses(&slices.items, central.config.local);
    memory.northd_at.send_replace(active.clone());
    for ip in active {
        alive |= dial(SocketAddr::new(ip, port), DIAL_LIMIT).await == Answer::Taken;
    }
    memory.northd_away = if alive { 0 } else { memory.northd_away + 1 };
    if memory.northd_away < STRIKES {
        return Ok(());
    }
    memory.northd_away = 0;
    tracing::warn!("no northd is active, freeing its lock");
    free_lock(central).await?;
    Ok(())
}

/// While the active northd is another member's, and its lock ours to give: a host without power
/// answers nothing at all, and after three silent dials (5 s at most) the lock is free. The rounds
/// alone would leave it with a dead host for up to 24 s. The new holder is told by its label, which
/// takes it a round or two (`settling`).
pub async fn keep_northd(
    central: &Central,
    mut active: watch::Receiver<Vec<IpAddr>>,
    settling: Duration,
) {
    let port = central.config.southbound.client;
    let mut silent = 0;
    loop {
        if active.wait_for(|all| !all.is_empty()).await.is_err() {
            return;
        }
        tokio::time::sleep(GLANCE).await;
        let hosts = active.borrow().clone();
        let mut lives = hosts.is_empty();
        for ip in hosts {
            lives |= dial(SocketAddr::new(ip, port), GLANCE_LIMIT).await != Answer::Silence;
        }
        silent = if lives { 0 } else { silent + 1 };
        if silent < STRIKES {
            continue;
        }
        silent = 0;
        tracing::warn!("the host of the active northd is silent, freeing its lock");
        if let Err(error) = free_lock(central).await {
            tracing::warn!(%error, "northd's lock is not freed");
        }
        tokio::time::sleep(settling).await;
    }
}

/// Makes the southbound server end all its sessions, that of the dead host among them; clients that
/// live are back at once and resume where they were.
///
/// Upstream steals the lock. ovsdb-server keeps the one that it was stolen from first in line, and
/// gives it back as soon as the thief is gone: a dead host kept it until the inactivity probe
/// (minutes).
pub async fn free_lock(central: &Central) -> Result<(), RpcError> {
    let socket = central.paths.control(Role::Southbound);
    rpc::control(&socket, "ovsdb-server/reconnect", &[], CONTROL_LIMIT).await.map(|_| ())
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
