//! Leader election on a `coordination.k8s.io/v1` Lease, by the algorithm of client-go.
//!
//! Expiry is judged by local observation: a lease is dead when its content has not changed for its
//! duration on *our* clock, so clocks of nodes need not agree. Writes replace the object at the
//! resourceVersion that was read, so two candidates cannot both win. A leader that could not renew
//! for the renew deadline stops leading before anybody else may start (20 s < 30 s).
//!
//! A holder whose host lost its power is not waited for that long: candidates dial it (see
//! [`super::holder`]), and one that answers nothing any more has [`Timing::silent`] to renew. Were
//! it alive after all, its transactions would meet the next leader's epoch and be refused.
//!
//! A lost leadership is final: the program ends with code 1 and starts anew, as upstream's does.

use std::{
    future::Future,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    time::Duration,
};

use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, Config, api::PostParams};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::holder::{Holder, Host};

/// Durations of an election; the default is that of upstream's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long others wait after the last renewal they saw.
    pub lease: Duration,
    /// How long a leader goes on without a successful renewal.
    pub renew_deadline: Duration,
    /// Between two renewals, and between two attempts. client-go's own programs have 2 s,
    /// upstream's controller 6 s.
    pub retry: Duration,
    /// Instead of `lease` when the host of the holder answers nothing any more.
    pub silent: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Timing {
            lease: seconds(30),
            renew_deadline: seconds(20),
            retry: seconds(2),
            silent: seconds(5),
        }
    }
}

/// State of this candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// Not leading; the holder as last seen.
    Standby { holder: Option<String> },
    /// Leading. `epoch` is never used twice; it fences transactions of deposed leaders.
    Leading { epoch: String },
    /// Final: leadership is gone.
    Lost { reason: String },
    /// Final: leadership (or the candidacy) was given up.
    Resigned,
}

#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("lease {namespace}/{name}: {source}")]
    Api { namespace: String, name: String, source: kube::Error },
    #[error("lease {namespace}/{name}: no answer from the API server in {after:?}")]
    Silence { namespace: String, name: String, after: Duration },
}

/// A running candidacy.
pub struct Election {
    state: watch::Receiver<Leadership>,
    resign: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Election {
    /// Follows the state; the sender lives as long as the candidacy.
    pub fn watch(&self) -> watch::Receiver<Leadership> {
        self.state.clone()
    }

    /// Gives leadership up: the lease is released, so another candidate takes it at once. Used at
    /// shutdown, and by a leader that could not commit anything for 30 s.
    pub async fn resign(mut self) {
        if let Some(resign) = self.resign.take() {
            // The task may have ended already, with the lease lost.
            let _ = resign.send(());
        }
        let _ = (&mut self.task).await;
    }
}

impl Drop for Election {
    /// Nobody can hear of a loss any more: stop renewing.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client for [`run`]: without kube's retries, which would hide a dead API server for minutes.
pub fn lease_client(mut config: Config) -> Result<Client, kube::Error> {
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(Duration::from_secs(5));
    Client::try_from(config)
}

/// Starts a candidacy for Lease `namespace/name` under the name `identity`.
pub fn run(client: Client, namespace: &str, name: &str, identity: &str) -> Election {
    run_with(client, namespace, name, identity, Timing::default())
}

/// [`run`] with other durations.
pub fn run_with(
    client: Client,
    namespace: &str,
    name: &str,
    identity: &str,
    timing: Timing,
) -> Election {
    let candidate = Candidate {
        api: Api::namespaced(client.clone(), namespace),
        client,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        identity: identity.to_owned(),
        timing,
        seen: None,
        term: None,
        holder: Holder::default(),
    };
    let (sender, state) = watch::channel(Leadership::Standby { holder: None });
    let (resign, resigned) = oneshot::channel();
    Election { state, resign: Some(resign), task: tokio::spawn(candidate.live(sender, resigned)) }
}

struct Candidate {
    client: Client,
    api: Api<Lease>,
    namespace: String,
    name: String,
    identity: String,
    timing: Timing,
    /// The lease as last read or written, and when its content last changed.
    seen: Option<Observed>,
    term: Option<Term>,
    /// The other one that leads.
    holder: Holder,
}

struct Observed {
    lease: Lease,
    changed: Instant,
}

/// Our time in office.
struct Term {
    epoch: String,
    /// Start of the last request that renewed the lease.
    renewed: Instant,
}

/// What to do about a lease that was read.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Somebody else holds it.
    Stand { holder: String },
    /// Write this.
    Claim(Box<LeaseSpec>),
}

/// Which part we play while deciding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Candidate,
    Leader,
}

/// Pure heart of the election. `age`: how long the lease has been unchanged on our clock; `now`:
/// wall clock, only written, never compared.
pub fn decide(
    spec: &LeaseSpec,
    age: Duration,
    me: (&str, Role),
    term: (Duration, Timestamp),
) -> Step {
    let (identity, role) = me;
    let (length, now) = term;
    let holder = spec.holder_identity.clone().unwrap_or_default();
    let promised = Duration::from_secs(spec.lease_duration_seconds.unwrap_or(0).max(0) as u64);
    if !holder.is_empty() && holder != identity && age < promised {
        return Step::Stand { holder };
    }
    let goes_on = role == Role::Leader && holder == identity;
    let mut claim = LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(length.as_secs().max(1) as i32),
        renew_time: Some(MicroTime(now)),
        ..spec.clone()
    };
    if !goes_on {
        // Also when our name holds it already: the process before us did, so this is a new term.
        claim.acquire_time = Some(MicroTime(now));
        claim.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
    }
    Step::Claim(Box::new(claim))
}

/// Result of one attempt.
enum Round {
    Held,
    Other(Option<String>),
}

impl Candidate {
    async fn live(mut self, state: watch::Sender<Leadership>, mut resigned: oneshot::Receiver<()>) {
        loop {
            let began = Instant::now();
            let patience = self.patience();
            let round = tokio::select! {
                round = timeout(patience, self.attempt()) => round,
                _ = &mut resigned => break,
            };
            let round = round.unwrap_or_else(|_| Err(self.silence(patience)));
            if let Some(end) = self.conclude(round, began, &state) {
                let _ = state.send(end);
                return;
            }
            tokio::select! {
                () = self.rest() => {}
                _ = &mut resigned => break,
            }
        }
        self.release().await;
        let _ = state.send(Leadership::Resigned);
    }

    /// Time that one attempt may take: a leader must know in time that it lost.
    fn patience(&self) -> Duration {
        match &self.term {
            Some(term) => self.timing.renew_deadline.saturating_sub(term.renewed.elapsed()),
            None => self.timing.renew_deadline,
        }
    }

    /// Candidates spread their attempts over 1.0 to 2.2 periods, so they do not collide for ever.
    fn pause(&self) -> Duration {
        if let Some(term) = &self.term {
            let left = self.timing.renew_deadline.saturating_sub(term.renewed.elapsed());
            return self.timing.retry.min(left);
        }
        let random = RandomState::new().hash_one(&self.identity) % 1000;
        self.timing.retry.mul_f64(1.0 + 1.2 * random as f64 / 1000.0)
    }

    /// Until the next attempt. A candidate watches the host of the holder meanwhile, and is quick
    /// when that one answers nothing.
    async fn rest(&mut self) {
        let end = Instant::now() + self.pause();
        if self.term.is_some() {
            return sleep_until(end).await;
        }
        while Instant::now() < end {
            let address = match self.holder.unresolved() {
                Some(name) => self.address_of(&name).await,
                None => None,
            };
            if let Some(address) = address {
                self.holder.resolve(address);
            }
            let looked = timeout_at(end, self.holder.look(self.timing.retry / 2)).await;
            if looked.is_ok() && self.holder.host() == Host::Silent {
                return;
            }
        }
    }

    /// Where a pod of ours runs.
    async fn address_of(&self, pod: &str) -> Option<IpAddr> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = timeout(self.timing.retry, pods.get_opt(pod)).await.ok()?.ok()??;
        found.status?.pod_ip?.parse().ok()
    }

    /// Publishes the outcome of a round; `Some` ends the candidacy.
    fn conclude(
        &mut self,
        round: Result<Round, LeaseError>,
        began: Instant,
        state: &watch::Sender<Leadership>,
    ) -> Option<Leadership> {
        match round {
            Ok(Round::Held) => {
                let epoch = match self.term.take() {
                    Some(term) => term.epoch,
                    None => self.epoch(),
                };
                self.term = Some(Term { epoch: epoch.clone(), renewed: began });
                publish(state, Leadership::Leading { epoch });
                None
            }
            Ok(Round::Other(holder)) if self.term.is_some() => {
                let holder = holder.unwrap_or_default();
                Some(Leadership::Lost { reason: format!("{holder:?} took the lease") })
            }
            Ok(Round::Other(holder)) => {
                if let Some(name) = &holder {
                    self.holder.follow(name);
                }
                publish(state, Leadership::Standby { holder });
                None
            }
            Err(error) => {
                tracing::warn!(%error, "leader election");
                let late = |term: &Term| term.renewed.elapsed() >= self.timing.renew_deadline;
                let lost = self.term.as_ref().is_some_and(late);
                lost.then(|| Leadership::Lost { reason: error.to_string() })
            }
        }
    }

    /// Number of the term, holder and time of acquisition: unique even if the lease is deleted.
    fn epoch(&self) -> String {
        let spec = self.seen.as_ref().and_then(|seen| seen.lease.spec.clone()).unwrap_or_default();
        let at = spec.acquire_time.map(|time| time.0.as_microsecond()).unwrap_or_default();
        format!("{}/{}/{at}", spec.lease_transitions.unwrap_or_default(), self.identity)
    }

    async fn attempt(&mut self) -> Result<Round, LeaseError> {
        // A leader renews without reading; any surprise leads to the long way.
        if self.term.is_some()
            && let Some(lease) = self.seen.as_ref().map(|seen| seen.lease.clone())
            && self.write(lease).await?
        {
            return Ok(Round::Held);
        }
        match self.call(self.api.get_opt(&self.name)).await? {
            None => self.create().await,
            Some(lease) => {
                self.observe(lease.clone());
                match self.step() {
                    Step::Stand { holder } => Ok(Round::Other(Some(holder))),
                    Step::Claim(_) if self.write(lease).await? => Ok(Round::Held),
                    // Another candidate was faster.
                    Step::Claim(_) => Ok(Round::Other(None)),
                }
            }
        }
    }

    /// Keeps the time of the last change: only content counts, not the reading of it.
    fn observe(&mut self, lease: Lease) {
        let same = self.seen.as_ref().filter(|seen| seen.lease.spec == lease.spec);
        let changed = same.map_or_else(Instant::now, |seen| seen.changed);
        self.seen = Some(Observed { lease, changed });
    }

    fn step(&self) -> Step {
        let role = if self.term.is_some() { Role::Leader } else { Role::Candidate };
        let empty = LeaseSpec::default();
        let (spec, age) = match &self.seen {
            Some(seen) => (seen.lease.spec.as_ref().unwrap_or(&empty), seen.changed.elapsed()),
            None => (&empty, Duration::ZERO),
        };
        let age = match self.holder.host() {
            Host::Silent if age >= self.timing.silent => Duration::MAX,
            _ => age,
        };
        decide(spec, age, (&self.identity, role), (self.timing.lease, Timestamp::now()))
    }

    /// `false`: the lease changed or went since it was read.
    async fn write(&mut self, mut lease: Lease) -> Result<bool, LeaseError> {
        let Step::Claim(spec) = self.step() else { return Ok(false) };
        lease.spec = Some(*spec);
        let parameters = PostParams::default();
        let written = self.api.replace(&self.name, &parameters, &lease).await;
        self.written(written)
    }

    async fn create(&mut self) -> Result<Round, LeaseError> {
        self.seen = None;
        let mut lease = Lease::default();
        lease.metadata.name = Some(self.name.clone());
        if let Step::Claim(spec) = self.step() {
            lease.spec = Some(*spec);
        }
        let created = self.api.create(&PostParams::default(), &lease).await;
        let held = self.written(created)?;
        Ok(if held { Round::Held } else { Round::Other(None) })
    }

    fn written(&mut self, result: Result<Lease, kube::Error>) -> Result<bool, LeaseError> {
        match result {
            Ok(lease) => {
                self.seen = Some(Observed { lease, changed: Instant::now() });
                Ok(true)
            }
            Err(kube::Error::Api(status))
                if status.is_conflict() || status.is_already_exists() || status.is_not_found() =>
            {
                Ok(false)
            }
            Err(source) => Err(self.failed(source)),
        }
    }

    /// Hands the lease back, so that the next leader need not wait for its end.
    async fn release(&mut self) {
        let Some(mut lease) = self.seen.take().map(|seen| seen.lease) else { return };
        if self.term.take().is_none() {
            return;
        }
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        let parameters = PostParams::default();
        let write = self.api.replace(&self.name, &parameters, &lease);
        match timeout(self.timing.retry, self.call(write)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "release of the lease"),
            Err(_) => tracing::warn!(error = %self.silence(self.timing.retry), "release"),
        }
    }

    async fn call<T>(
        &self,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, LeaseError> {
        request.await.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: kube::Error) -> LeaseError {
        LeaseError::Api { namespace: self.namespace.clone(), name: self.name.clone(), source }
    }

    fn silence(&self, after: Duration) -> LeaseError {
        LeaseError::Silence { namespace: self.namespace.clone(), name: self.name.clone(), after }
    }
}

/// Wakes the followers only when something changed.
fn publish(state: &watch::Sender<Leadership>, new: Leadership) {
    state.send_if_modified(|old| {
        let differs = *old != new;
        if differs {
            *old = new;
        }
        differs
    });
}
