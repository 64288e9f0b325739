//! CNI ADD: from a request to an interface that works.
//!
//! Nothing here polls. A request sleeps until the watch shows the pod's annotations, then until
//! the replica shows `ovn-installed`. Whatever ends it early (failure, time, a plugin that is
//! gone, a pod that is gone) undoes everything that was made.

use std::{
    future::Future,
    sync::{Arc, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    apply::{ApplyError, Executor},
    events::PodEvents,
    gateway::{KnownGateways, PodNic, ProbeError, check_conflicts, check_gateways},
    locks::NicLocks,
    metrics::{Metrics, Waited},
    observe::dump,
    ovs_rows::{PortState, port_state},
    pair::{self, BeginError},
    progress::{Progress, Timeline},
    resolve::{Addresses, NodeFacts, Ready, Refusal, Resolution, Work, resolve},
    state::Cluster,
};
use crate::{
    api::{Pod, Text},
    cni::wire::{Request, Response, Route},
    host::{AttachError, AttachPlan, AttachRequest, DefaultRoute, GatewayCheck, HostOp},
    kernel::{self, Effort},
    net::{Cidr, DualStack, Place},
};

/// The whole of an ADD. kubelet's runtime gives up after minutes; long before that the user
/// should read what is missing.
pub const BUDGET: Duration = Duration::from_secs(60);

/// A pod that the runtime starts was scheduled long ago; a watch that does not show it after this
/// time never will.
const POD_PATIENCE: Duration = Duration::from_secs(10);

/// A lenient gateway check and the like must not hang either.
const PROBE_BUDGET: Duration = Duration::from_secs(2);

/// A gateway that was known to work has this long to answer a new pod.
const LATER_BUDGET: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum CniError {
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("timed out after {seconds} s waiting for {what}")]
    Timeout { seconds: u64, what: String },
    #[error("the runtime cancelled the request while it waited for {what}")]
    Cancelled { what: String },
    #[error("pod {pod} was deleted while its interface was waiting for {what}")]
    PodGone { pod: Text, what: String },
    #[error(transparent)]
    Plan(#[from] AttachError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error("Open vSwitch cannot use interface {link}: {error}")]
    Port { link: Text, error: Text },
    #[error("{0}")]
    Check(String),
}

/// Serves CNI requests; cheap to clone.
#[derive(Debug, Clone)]
pub struct Attacher {
    pub(super) cluster: Arc<Cluster>,
    pub(super) executor: Executor,
    pub(super) facts: watch::Receiver<NodeFacts>,
    pub(super) locks: NicLocks,
    pub(super) metrics: Option<Metrics>,
    pub(super) budget: Duration,
    pub(super) known_gateways: Arc<KnownGateways>,
    pub(super) events: Option<PodEvents>,
}

/// An answered ADD.
#[derive(Debug, Clone)]
pub struct Added {
    pub response: Response,
    pub timeline: Timeline,
    /// What it asked of the kernel up to the last change; `None` when it made no NIC.
    pub effort: Option<Effort>,
}

/// One ADD: its deadline, its canceller and what it waits for.
struct Attempt<'a> {
    attacher: &'a Attacher,
    request: &'a Request,
    cancel: &'a CancellationToken,
    deadline: tokio::time::Instant,
    progress: Progress,
    /// Key and UID of the pod, once known: its end ends the attempt.
    pod: OnceLock<(Text, Text)>,
    effort: OnceLock<Effort>,
    subnet: OnceLock<Text>,
}

impl Attacher {
    pub fn new(
        cluster: Arc<Cluster>,
        executor: Executor,
        facts: watch::Receiver<NodeFacts>,
        metrics: Option<Metrics>,
    ) -> Self {
        let locks = NicLocks::default();
        Attacher {
            cluster,
            executor,
            facts,
            locks,
            metrics,
            budget: BUDGET,
            known_gateways: Arc::default(),
            events: None,
        }
    }

    /// The same with Events on pods.
    #[must_use]
    pub fn with_events(mut self, events: PodEvents) -> Self {
        self.events = Some(events);
        self
    }

    /// The same with another time limit.
    #[must_use]
    pub fn with_budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    /// CNI ADD. Idempotent: the same request again changes nothing and gives the same answer.
    pub async fn add(
        &self,
        request: &Request,
        cancel: &CancellationToken,
    ) -> Result<Added, CniError> {
        let attempt = Attempt {
            attacher: self,
            request,
            cancel,
            deadline: tokio::time::Instant::now() + self.budget,
            progress: Progress::default(),
            pod: OnceLock::new(),
            effort: OnceLock::new(),
            subnet: OnceLock::new(),
        };
        attempt.progress.reached("start");
        let response = attempt.run().await?;
        let effort = attempt.effort.into_inner();
        Ok(Added { response, timeline: attempt.progress.timeline(), effort })
    }

    pub(super) fn observe_wait(&self, waited: Waited, since: Instant) {
        if let Some(metrics) = &self.metrics {
            metrics.observe_wait(waited, since.elapsed().as_secs_f64());
        }
    }
}

impl From<BeginError> for CniError {
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::Plan(error) => error.into(),
            BeginError::Kernel(error) => error.into(),
        }
    }
}

impl Attempt<'_> {
    async fn run(&self) -> Result<Response, CniError> {
        let lock = self.attacher.locks.of(&self.request.container_id, &self.request.if_name);
        self.progress.set("an earlier request for the same interface");
        let _held = self.bounded(async { Ok(lock.lock().await) }).await?;
        let ready = self.resolved().await?;
        self.progress.reached("annotations");
        let _ = self.pod.set((ready.pod.clone(), ready.uid.clone()));
        let _ = self.subnet.set(ready.subnet.clone());
        match &ready.work {
            Work::Addresses(addresses) => self.addresses(addresses).await,
            Work::Interface(attach) => self.interface(attach).await,
        }
    }

    /// Name of the subnet; "" before it is known.
    fn subnet(&self) -> &Text {
        self.subnet.get_or_init(|| "".into())
    }

    async fn pod_gone(&self) -> Text {
        match self.pod.get() {
            Some((key, uid)) => {
                self.attacher.cluster.pod_gone(key, uid).await;
                key.clone()
            }
            None => std::future::pending().await,
        }
    }

    /// Runs a wait until it is over, or time, runtime or user end it. Nothing that changes the
    /// node runs in here: a dropped change would go on behind the back of the rollback.
    async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, CniError>>,
    ) -> Result<T, CniError> {
        tokio::select! {
            biased;
            result = work => result,
            () = self.cancel.cancelled() => {
                Err(CniError::Cancelled { what: self.progress.get() })
            }
            () = tokio::time::sleep_until(self.deadline) => Err(CniError::Timeout {
                seconds: self.attacher.budget.as_secs(),
                what: self.progress.get(),
            }),
            pod = self.pod_gone() => Err(CniError::PodGone { pod, what: self.progress.get() }),
        }
    }

    /// Waits for everything that the cluster must say about the pod.
    async fn resolved(&self) -> Result<Box<Ready>, CniError> {
        let since = Instant::now();
        let mut waited = Waited::Address;
        let result = self.bounded(self.resolve_when_possible(&mut waited)).await;
        self.attacher.observe_wait(waited, since);
        result
    }

    async fn resolve_when_possible(&self, waited: &mut Waited) -> Result<Box<Ready>, CniError> {
        let mut facts = self.attacher.facts.clone();
        let mut changes = self.attacher.cluster.changes();
        let pod_deadline = tokio::time::Instant::now() + POD_PATIENCE;
        loop {
            changes.mark_unchanged();
            let node = facts.borrow_and_update().clone();
            let state = self.attacher.cluster.read(|s| resolve(self.request, s, &node));
            let mut deadline = None;
            match state {
                Resolution::Ready(ready) => return Ok(ready),
                Resolution::Refused(refusal) => return Err(refusal.into()),
                Resolution::WaitForPod(what) => {
                    deadline = Some(pod_deadline);
                    self.progress.set(what);
                }
                Resolution::Wait(what) => {
                    if what.ends_with("routed=true") {
                        *waited = Waited::Route;
                    }
                    let (namespace, pod) = (&self.request.pod_namespace, &self.request.pod_name);
                    self.progress.set(format!("{what} of pod {namespace}/{pod}"));
                }
            }
            tokio::select! {
                _ = changes.changed() => {}
                Ok(()) = facts.changed() => {}
                () = at(deadline) => return Err(CniError::Timeout {
                    seconds: POD_PATIENCE.as_secs(),
                    what: self.progress.get(),
                }),
            }
        }
    }

    async fn interface(&self, attach: &AttachRequest) -> Result<Response, CniError> {
        let executor = &self.attacher.executor;
        self.progress.set("the vswitch database (is the ovs-ovn pod running?)");
        let connected = async {
            executor.vswitch().connected().await;
            Ok(())
        };
        self.bounded(connected).await?;
        let begun = pair::begin(executor, attach).await?;
        self.progress.reached("pair");
        for warning in &begun.plan.warnings {
            tracing::warn!(port = %begun.plan.iface_id, %warning, "a route of the pod is left out");
        }
        let (plan, made) = begun.finish(executor).await;
        let result = match made {
            Ok(effort) => {
                let _ = self.effort.set(effort);
                self.connect(attach, &plan).await
            }
            Err(error) => Err(error.into()),
        };
        match result {
            Ok(()) => Ok(self.answer(attach, &plan)),
            Err(error) => {
                executor.apply_best_effort(plan.rollback).await;
                Err(error)
            }
        }
    }

    /// Waits until the NIC carries traffic.
    async fn connect(&self, attach: &AttachRequest, plan: &AttachPlan) -> Result<(), CniError> {
        let executor = &self.attacher.executor;
        self.progress.reached("links");
        self.progress.set(format!(
            "ovn-controller to install the flows of port {} (external_ids:ovn-installed)",
            plan.iface_id
        ));
        self.bounded(installed(executor, &plan.names.host)).await?;
        self.progress.reached("flows");
        announce(executor.clone(), plan.after_installed.clone());
        let nic = PodNic {
            netns: attach.netns.clone(),
            ifname: attach.ifname.clone(),
            mac: attach.mac,
            addresses: attach.addresses,
        };
        self.progress.set("the check of address conflicts");
        self.bounded(async { Ok(check_conflicts(&nic, attach.dad).await?) }).await?;
        self.reach_gateways(&nic, plan).await?;
        self.progress.reached("gateway");
        Ok(())
    }

    async fn reach_gateways(&self, nic: &PodNic, plan: &AttachPlan) -> Result<(), CniError> {
        if plan.gateway_check == GatewayCheck::Required
            && self.attacher.known_gateways.all_fresh(self.subnet(), &plan.gateways)
        {
            // Somebody on this node has just heard them: the pod need not wait, but is told when
            // they do not answer it.
            self.check_later(nic, plan);
            return Ok(());
        }
        let since = Instant::now();
        let asking = |gateway| self.progress.set(format!("an answer of gateway {gateway}"));
        let check = check_gateways(nic, &plan.gateways, plan.gateway_check, asking);
        let result = match plan.gateway_check {
            GatewayCheck::Required => {
                let heard = self.bounded(async { Ok(check.await?) }).await.map(|_| ());
                if heard.is_ok() {
                    self.attacher.known_gateways.heard(self.subnet(), &plan.gateways);
                }
                heard
            }
            GatewayCheck::Lenient => {
                let _ = tokio::time::timeout(PROBE_BUDGET, check).await;
                Ok(())
            }
            GatewayCheck::Skipped => Ok(()),
        };
        self.attacher.observe_wait(Waited::Connectivity, since);
        result
    }

    /// The check of gateways that are known to work, beside the answer.
    fn check_later(&self, nic: &PodNic, plan: &AttachPlan) {
        let (nic, gateways) = (nic.clone(), plan.gateways.clone());
        let (attacher, subnet) = (self.attacher.clone(), self.subnet().clone());
        let pod = self.pod.get().map(|(key, _)| key.clone());
        tokio::spawn(async move {
            let silent = std::sync::Mutex::new(None);
            let asking =
                |gateway| *silent.lock().unwrap_or_else(PoisonError::into_inner) = Some(gateway);
            let check = check_gateways(&nic, &gateways, GatewayCheck::Required, asking);
            if matches!(tokio::time::timeout(LATER_BUDGET, check).await, Ok(Ok(_))) {
                attacher.known_gateways.heard(&subnet, &gateways);
                return;
            }
            attacher.known_gateways.forget(&subnet, &gateways);
            let pod = pod.and_then(|key| attacher.cluster.read(|s| s.store.shared::<Pod>(&key)));
            let silent = silent.into_inner().unwrap_or_else(PoisonError::into_inner);
            if let (Some(pod), Some(gateway), Some(events)) = (pod, silent, &attacher.events) {
                let interface = &nic.ifname;
                let message = format!("gateway {gateway} does not answer interface {interface}");
                events.warn(&pod, "GatewayCheckFailed", message).await;
            }
        });
    }

    fn answer(&self, attach: &AttachRequest, plan: &AttachPlan) -> Response {
        let gateways = match attach.default_route {
            DefaultRoute::Wanted => attach.gateways.to_string(),
            DefaultRoute::None => String::new(),
        };
        let routes = plan.routes.iter().map(|r| Route {
            dst: r.destination.to_string(),
            gw: r.gateway.map(|g| g.to_string()).unwrap_or_default(),
        });
        Response {
            mac_address: attach.mac.to_string(),
            gateway: gateways,
            routes: routes.collect(),
            mtu: attach.mtu.unwrap_or(0),
            nicname: attach.ifname.to_string(),
            dns: self.request.dns.clone(),
            ..addressed(&attach.addresses)
        }
    }

    /// IPAM for another plugin: no link is touched, but a default route that we are about to
    /// return must be free in the pod, or the main plugin fails to add it.
    async fn addresses(&self, wanted: &Addresses) -> Result<Response, CniError> {
        let defaults: Vec<Cidr> = wanted
            .routes
            .iter()
            .filter(|r| r.dst.is_empty() || r.dst.ends_with("/0"))
            .filter_map(|r| if r.dst.is_empty() { default_of(&r.gw) } else { r.dst.parse().ok() })
            .collect();
        if !defaults.is_empty() {
            let place = Place::Namespace(self.request.net_ns.as_str().into());
            let seen = {
                let place = place.clone();
                kernel::within(Place::Host, move || dump(&place)).await?.routes
            };
            let stale = seen.into_iter().filter(|r| defaults.contains(&r.destination));
            let ops = stale.map(|route| HostOp::RemoveRoute { place: place.clone(), route });
            self.attacher.executor.apply(ops.collect()).await?;
        }
        Ok(Response {
            gateway: wanted.gateways.to_string(),
            routes: wanted.routes.clone(),
            dns: self.request.dns.clone(),
            ..addressed(&wanted.addresses)
        })
    }
}

/// Resolves at `deadline`; never when there is none.
async fn at(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn default_of(gateway: &str) -> Option<Cidr> {
    let gateway = crate::net::parse_ip(gateway).ok()?;
    Some(crate::net::Family::of(gateway).default_route())
}

fn addressed(addresses: &DualStack<Cidr>) -> Response {
    Response {
        protocol: addresses.protocol().to_owned(),
        address: addresses.map(|c| c.address).to_string(),
        cidr: addresses.map(|c| c.network()).to_string(),
        ..Response::default()
    }
}

/// Waits until ovn-controller has the port's flows in.
async fn installed(executor: &Executor, link: &Text) -> Result<(), CniError> {
    let state = executor.vswitch().until(|replica| match port_state(replica, link) {
        PortState::Installed => Some(Ok(())),
        PortState::Failed(error) => Some(Err(error)),
        // A port that somebody deletes meanwhile comes back with the next ADD.
        PortState::Missing | PortState::Pending => None,
    });
    state.await.map_err(|error| CniError::Port { link: link.clone(), error })
}

/// Gratuitous ARP and its kin cost up to seconds upstream; nobody has to wait for them.
fn announce(executor: Executor, ops: Vec<HostOp>) {
    if ops.is_empty() {
        return;
    }
    tokio::spawn(async move {
        if let Err(error) = executor.apply(ops).await {
            tracing::debug!(%error, "announcement failed; the pod may be gone already");
        }
    });
}
