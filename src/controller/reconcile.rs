//! The loop of the leader: events in, transactions and writes out. One task owns the store, the
//! engine, the ledger and the commit state machine, so nothing here needs a lock; everything slow
//! (OVSDB, API writes) runs beside it and reports back through channels.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kube::Client as KubeClient;
use tokio::sync::{mpsc, watch};

use crate::{
    api::{Gateway, Kind, Node, Settings, Subnet, Text},
    ovsdb::client::{Client as OvsdbClient, Event as OvsdbEvent, OvsdbError},
    plan::{Cause, Engine},
    store::{
        Feature, Owner, Presence, Problem, Read, Store, Stored, Wanted, last_valid,
        watch::{Change, Refused, SeenMap, Update, What},
    },
};

mod hold_back;
pub mod oracle;
pub mod told;
pub mod usage;

use super::{
    chassis::Nodes,
    commit::{AcceptPlan, Commit, Finished, Next},
    figures::Figures,
    gateway,
    gateway_probe::{self, Targets},
    ledger::{Action, Claimant, Ledger, Northbound},
    patience::{Patience, Rivals, STUCK, State, Verdict},
    publish::Publisher,
    records::{Existence, RecordError, apply_action},
};

use hold_back::HeldBack;
use oracle::{Applied, Oracle};

/// API writes of IP CRs under way at a time: beyond this the API server only queues.
const WRITES: usize = 64;
/// Metrics of subnets are renewed this often, as a usual scrape comes.
const FIGURES: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_secs(1);
/// A record that cannot be read is in the way: looked at again after this.
const OTHERS: Duration = Duration::from_secs(10);

/// Why the loop ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("another controller has taken over the northbound database")]
    Deposed,
    #[error("nothing could be committed for {0:?}")]
    Stuck(Duration),
    #[error("no northbound database could be reached for {0:?}, and others may reach one")]
    CutOff(Duration),
    #[error("the {0} channel closed")]
    Closed(&'static str),
}

/// Progress for readiness, metrics and the status command.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// All watches and the replica are in sync and everything computed is committed.
    pub settled: bool,
    /// Was settled once, and since then was never stuck.
    pub ready: bool,
    pub waiting_for: Vec<String>,
    /// Pods and nodes that got no address.
    pub waiting_claimants: usize,
    pub transactions: u64,
    pub operations: u64,
    pub refused: u64,
    pub drift: u64,
    pub owner_runs: u64,
    pub oracle_differences: u64,
    pub oracle_runs: u64,
    pub pods: usize,
    pub rows: usize,
}

/// Shared with the health and metrics endpoints.
pub type SharedProgress = Arc<Mutex<Progress>>;

pub struct Inputs {
    pub kube: KubeClient,
    pub ovsdb: OvsdbClient,
    pub ovsdb_events: mpsc::UnboundedReceiver<OvsdbEvent>,
    pub watch: mpsc::Receiver<Update>,
    pub publisher: Publisher,
    /// Kinds that must be listed before anything is written.
    pub kinds: BTreeSet<Kind>,
    pub settings: Settings,
    pub accept: AcceptPlan,
    pub progress: SharedProgress,
    /// Nodes and their chassis, for the southbound upkeep.
    pub nodes: watch::Sender<Option<Nodes>>,
    /// Gateway nodes to probe, and those that do not answer.
    pub gateways: watch::Sender<Targets>,
    pub silent: watch::Receiver<BTreeSet<Text>>,
    pub figures: Figures,
    pub rivals: Rivals,
}

enum Done {
    Transaction(Result<(), OvsdbError>),
    Write(Action, Claimant, Result<Existence, RecordError>),
}

pub struct Reconciler {
    kube: KubeClient,
    ovsdb: OvsdbClient,
    publisher: Publisher,
    done: mpsc::UnboundedSender<Done>,
    store: Store,
    seen: SeenMap,
    /// The latest valid version of what has one recorded in its status.
    accepted: SeenMap,
    held_back: HeldBack,
    engine: Engine,
    commit: Commit,
    ledger: Ledger,
    unsynced: BTreeSet<Kind>,
    /// Problems found by the ledger when it took an object in.
    ledger_problems: BTreeMap<(Kind, Text), Problem>,
    /// Owners with something new to publish, once it is committed.
    to_publish: BTreeSet<Owner>,
    retries: BTreeMap<Instant, Vec<Claimant>>,
    /// Pods that had no node at the last tick.
    unplaced: Vec<Text>,
    patience: Patience,
    was_settled: bool,
    oracle: Oracle,
    told: told::Told,
    /// Nothing was published yet.
    silent_start: bool,
    /// It is known which addresses are in use, whatever the records say.
    witnessed: bool,
    progress: SharedProgress,
    nodes: watch::Sender<Option<Nodes>>,
    gateways: watch::Sender<Targets>,
    /// Gateway nodes that do not answer.
    silent: BTreeSet<Text>,
    figures: Figures,
    figures_shown: Instant,
}

/// Features whose flag says that none of their rows shall stay.
fn switched_off(settings: &Settings) -> impl Iterator<Item = &'static str> {
    const BALANCERS: &[&str] = &["service"];
    const POLICIES: &[&str] =
        &["network-policy", "policy-member", "policy-exemption", "policy-gateway", "policy-node"];
    const ADMIN: &[&str] =
        &["admin-network-policy", "baseline-admin-network-policy", "admin-policy-node"];
    let flags = [
        (settings.enable_lb, BALANCERS),
        (settings.enable_np, POLICIES),
        (settings.enable_anp, ADMIN),
    ];
    flags.into_iter().filter(|(enabled, _)| !enabled).flat_map(|(_, names)| names.iter().copied())
}

/// Runs until leadership has to end.
pub async fn reconcile(features: &'static [Feature], inputs: Inputs) -> Ended {
    let Inputs { mut ovsdb_events, watch: mut updates, mut silent, .. } = inputs;
    let (done, mut finished) = mpsc::unbounded_channel();
    let mut reconciler = Reconciler {
        kube: inputs.kube,
        ovsdb: inputs.ovsdb,
        publisher: inputs.publisher,
        done,
        store: Store::default(),
        seen: SeenMap::default(),
        accepted: SeenMap::default(),
        held_back: HeldBack::default(),
        engine: Engine::new(features),
        commit: Commit::new(inputs.accept),
        ledger: Ledger::default(),
        unsynced: inputs.kinds,
        ledger_problems: BTreeMap::new(),
        to_publish: BTreeSet::new(),
        retries: BTreeMap::new(),
        unplaced: Vec::new(),
        patience: Patience::new(inputs.rivals),
        was_settled: false,
        oracle: Oracle::default(),
        told: told::Told::default(),
        silent_start: true,
        witnessed: false,
        progress: inputs.progress,
        nodes: inputs.nodes,
        gateways: inputs.gateways,
        silent: BTreeSet::new(),
        figures: inputs.figures,
        figures_shown: Instant::now(),
    };
    for feature in switched_off(&inputs.settings) {
        reconciler.commit.switch_off(feature);
    }
    reconciler.apply(vec![(Arc::new(inputs.settings) as Arc<dyn Stored>).into()]);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // Answers and database updates first, so that a burst of watch events cannot starve them.
        let result = tokio::select! {
            biased;
            event = ovsdb_events.recv() => match event {
                Some(event) => reconciler.on_ovsdb(event),
                None => Err(Ended::Closed("OVSDB")),
            },
            done = finished.recv() => match done {
                Some(done) => reconciler.on_done(done),
                None => Err(Ended::Closed("result")),
            },
            update = updates.recv() => match update {
                Some(update) => {
                    reconciler.on_watch(update, &mut updates);
                    Ok(())
                }
                None => Err(Ended::Closed("watch")),
            },
            Ok(()) = silent.changed() => {
                let silent = silent.borrow_and_update().clone();
                reconciler.on_silence(silent);
                Ok(())
            }
            _ = tick.tick() => reconciler.on_tick(Instant::now()),
        };
        if let Err(ended) = result.and_then(|()| reconciler.advance(Instant::now())) {
            return ended;
        }
    }
}

/// A change of the store.
enum Step {
    Upsert(Arc<dyn Stored>),
    Remove(Kind, Text, Cause),
}

impl From<Arc<dyn Stored>> for Step {
    fn from(object: Arc<dyn Stored>) -> Self {
        Step::Upsert(object)
    }
}

impl Reconciler {
    /// Takes in all that has arrived at once: a burst becomes one refresh.
    fn on_watch(&mut self, first: Update, more: &mut mpsc::Receiver<Update>) {
        let mut steps = Vec::new();
        let mut next = Some(first);
        while let Some(update) = next {
            match update {
                Update::Change(change) => {
                    steps.extend(self.step_of(change));
                }
                Update::Synced(kind) => {
                    self.ledger.listed(kind);
                    self.unsynced.remove(&kind);
                }
            }
            next = if steps.len() < 2000 { more.try_recv().ok() } else { None };
        }
        self.apply(steps);
    }

    /// An edit that is not valid leaves the last valid version in force: a typing error must not
    /// take the network away from running pods. The object's condition and Event say so. When this
    /// process never saw the object valid, its status tells what it was.
    fn step_of(&mut self, change: Change) -> Option<Step> {
        self.seen.note(&change);
        self.publisher.note(&change);
        if let Some(step) = self.hold_back(&change) {
            return step;
        }
        if last_valid::is_recorded(change.kind) && !matches!(change.what, What::Refused(..)) {
            self.accepted.note(&change);
        }
        let Change { kind, key, what } = change;
        match what {
            What::Refused(Refused { last_valid: Some(object), .. }, _)
                if !self.store.contains(kind, &key) =>
            {
                Some(Step::Upsert(object))
            }
            What::Upsert(object, _) => Some(Step::Upsert(object)),
            What::Refused(_, seen) if seen.deleting && kind == Kind::Subnet => self.leave(&key),
            What::Refused(..) => None,
            What::AbsentAfterRelist => Some(Step::Remove(kind, key, Cause::Changed)),
            What::Deleted => Some(Step::Remove(kind, key, Cause::Deleted)),
        }
    }

    /// A subnet that is deleted while its text is not valid: the version in force leaves as any
    /// other does; without one (the process is younger) nothing is left to wait for.
    fn leave(&mut self, name: &Text) -> Option<Step> {
        if let Some(subnet) = self.store.get::<Subnet>(name) {
            return Some(Step::Upsert(Arc::new(Subnet { deleting: true, ..subnet.clone() })));
        }
        let owner = Owner { feature: "ledger", kind: Kind::Subnet, key: name.clone() };
        let finalizer =
            Wanted::Finalizer { kind: Kind::Subnet, key: name.clone(), presence: Presence::Absent };
        self.publisher.reconcile(&owner, vec![finalizer], Vec::new());
        None
    }

    fn apply(&mut self, steps: Vec<Step>) {
        let mut reads: Vec<(Read, Cause)> = Vec::new();
        let mut subnets: BTreeSet<Text> = BTreeSet::new();
        for step in steps {
            match step {
                Step::Upsert(object) => {
                    let (kind, key) = (object.kind(), object.key());
                    let old = self.store.shared::<Subnet>(&key).filter(|_| kind == Kind::Subnet);
                    let changed = self.store.upsert(object);
                    if changed.is_empty() {
                        continue;
                    }
                    reads.extend(changed.into_iter().map(|r| (r, Cause::Edited)));
                    let problem = self.ledger.upserted(&self.store, kind, &key);
                    let problem = problem.or_else(|| self.held_back_problem(kind, &key));
                    self.note_ledger_problem(kind, &key, problem);
                    reads.extend(self.choose_gateways(kind, &key));
                    self.tell_gateway_change(old.as_deref(), &key);
                    subnets.extend((kind == Kind::Subnet).then_some(key));
                }
                Step::Remove(kind, key, cause) => {
                    let changed = self.store.remove(kind, &key);
                    if changed.is_empty() {
                        continue;
                    }
                    reads.extend(changed.into_iter().map(|r| (r, cause)));
                    self.ledger.removed(&self.store, kind, &key);
                    reads.extend(self.choose_gateways(kind, &key));
                }
            }
        }
        self.refresh(reads);
        // Of several that came at once the first did not know the others.
        subnets.iter().for_each(|name| self.publish_ledger(Kind::Subnet, name));
    }

    fn refresh(&mut self, reads: Vec<(Read, Cause)>) {
        let mut refresh = self.engine.refresh(&self.store, reads.iter().map(|(r, c)| (r, *c)));
        let republish = std::mem::take(&mut refresh.republish);
        self.commit.add(&mut refresh);
        for owner in republish {
            // What is computed before all lists are in may name objects as missing that come in
            // the next moment: nobody is told.
            if self.unsynced.is_empty() && self.commit.is_committed(&owner) {
                self.publish_owner(&owner);
            } else {
                self.to_publish.insert(owner);
            }
        }
    }

    fn note_ledger_problem(&mut self, kind: Kind, key: &Text, problem: Option<Problem>) {
        let target = (kind, key.clone());
        let changed = match &problem {
            Some(new) => self.ledger_problems.insert(target, new.clone()).as_ref() != Some(new),
            None => self.ledger_problems.remove(&target).is_some(),
        };
        if changed || last_valid::is_recorded(kind) {
            self.publish_ledger(kind, key);
        }
    }

    fn tell_gateway_change(&mut self, old: Option<&Subnet>, name: &Text) {
        let (Some(old), Some(new)) = (old, self.store.get::<Subnet>(name)) else { return };
        let events = gateway::change_events(old, new);
        if !events.is_empty() {
            let owner = Owner { feature: "gateway", kind: Kind::Subnet, key: name.clone() };
            self.publisher.reconcile(&owner, events, Vec::new());
        }
    }

    /// Gateway nodes died or came back.
    fn on_silence(&mut self, silent: BTreeSet<Text>) {
        self.silent = silent;
        let reads = self.choose_for(gateway_probe::concerned(&self.store));
        self.refresh(reads);
    }

    /// Gateways that a change of a node or subnet concerns, chosen again.
    fn choose_gateways(&mut self, kind: Kind, key: &Text) -> Vec<(Read, Cause)> {
        let names: Vec<Text> = match kind {
            Kind::Subnet => vec![key.clone()],
            Kind::Node => self
                .store
                .iter::<Subnet>()
                .filter(|s| s.gateway_nodes.iter().any(|g| g.node == *key))
                .map(|s| s.name.clone())
                .collect(),
            _ => return Vec::new(),
        };
        self.choose_for(names)
    }

    fn choose_for(&mut self, subnets: Vec<Text>) -> Vec<(Read, Cause)> {
        let mut reads = Vec::new();
        for name in subnets {
            let current = self.store.get::<Gateway>(&name).and_then(|g| g.active.first().cloned());
            let recorded = current.or_else(|| self.recorded_gateway(&name));
            let choice = self
                .store
                .get::<Subnet>(&name)
                .and_then(|s| gateway::choose(&self.store, s, recorded.as_deref(), &self.silent));
            let changed = match choice {
                Some(choice) => self.store.upsert(Arc::new(choice)),
                None => self.store.remove(Kind::Gateway, &name),
            };
            reads.extend(changed.into_iter().map(|r| (r, Cause::Changed)));
            self.publish_ledger(Kind::Subnet, &name);
        }
        reads
    }

    /// `status.activateGateway`: the choice of an earlier leader.
    fn recorded_gateway(&self, subnet: &str) -> Option<Text> {
        let seen = self.seen.get(Kind::Subnet, subnet)?;
        let status = seen.status.as_ref()?.value();
        let node = status.get("activateGateway")?.as_str()?;
        (!node.is_empty()).then(|| node.into())
    }

    fn on_ovsdb(&mut self, event: OvsdbEvent) -> Result<(), Ended> {
        let result = match &event {
            OvsdbEvent::Connected { endpoint, update } => {
                tracing::info!(%endpoint, "northbound database connected");
                self.commit.connected(&self.engine, update)
            }
            OvsdbEvent::Updated(update) => self.commit.updated(&self.engine, update),
            OvsdbEvent::Disconnected { reason } => {
                tracing::warn!(%reason, "northbound database disconnected");
                self.commit.disconnected();
                Ok(())
            }
        };
        if let Err(error) = result {
            tracing::error!(%error, "northbound replica is unusable, asking for a snapshot");
            self.commit.disconnected();
            self.ovsdb.resynchronize();
        }
        Ok(())
    }

    fn on_done(&mut self, done: Done) -> Result<(), Ended> {
        match done {
            Done::Transaction(result) => {
                let refused = matches!(result, Err(OvsdbError::Refused { .. }));
                if let Err(error) = &result {
                    tracing::warn!(%error, "northbound transaction failed");
                }
                match self.commit.finished(result, Instant::now()) {
                    Finished::Deposed => return Err(Ended::Deposed),
                    Finished::Committed => self.patience.committed(),
                    Finished::Again if refused => self.ovsdb.resynchronize(),
                    Finished::Again => {}
                }
            }
            Done::Write(action, claimant, result) => self.on_write(action, claimant, result),
        }
        Ok(())
    }

    fn on_write(
        &mut self,
        action: Action,
        claimant: Claimant,
        result: Result<Existence, RecordError>,
    ) {
        match (result, &action) {
            // The record stands: features may use it now, the watch will only confirm it.
            (Ok(Existence::Done), Action::Record(ip)) => {
                if !self.store.contains(Kind::Ip, &ip.name) {
                    self.apply(vec![Step::Upsert(Arc::new(ip.clone()))]);
                }
            }
            (Ok(Existence::Other), Action::Record(ip)) => {
                if !self.store.contains(Kind::Ip, &ip.name) {
                    self.ledger.abandoned(&ip.name, &claimant);
                    self.retries.entry(Instant::now() + OTHERS).or_default().push(claimant);
                }
            }
            (Ok(Existence::Absent), action) => {
                let port = action.port();
                if !self.store.contains(Kind::Ip, port) {
                    self.ledger.forgotten(port);
                }
            }
            (Ok(_), _) => {}
            (Err(error), _) => {
                tracing::warn!(%error, "write of an address record failed, trying again");
                self.ledger.write_failed(action.port(), &action);
                self.retries.entry(Instant::now() + TICK).or_default().push(claimant);
            }
        }
    }

    fn on_tick(&mut self, now: Instant) -> Result<(), Ended> {
        let later = self.retries.split_off(&now);
        for claimant in std::mem::replace(&mut self.retries, later).into_values().flatten() {
            self.ledger.retry(claimant);
        }
        for pod in std::mem::replace(&mut self.unplaced, self.ledger.take_untimed()) {
            self.ledger.overdue(pod);
        }
        self.let_in();
        self.publish_usage();
        self.tell_nodes();
        self.gateways.send_if_modified(|known| {
            let targets = gateway_probe::targets(&self.store);
            let changed = *known != targets;
            *known = targets;
            changed
        });
        if now.duration_since(self.figures_shown) > FIGURES {
            self.figures_shown = now;
            self.figures.show_subnets(&self.store, self.ledger.ipam());
        }
        for conflict in self.ledger.take_conflicts() {
            tracing::error!(conflict, "address records contradict each other");
        }
        let applied = if self.is_settled() { Applied::All } else { Applied::Part };
        if self.in_sync() && self.oracle.is_due(now, applied) {
            let (differences, cost) =
                oracle::consult(&mut self.engine, &mut self.commit, &self.store);
            self.oracle.note(Instant::now(), cost, differences);
        }
        self.tell_held_back();
        self.tell_refusals();
        match self.patience.observe(self.outlook(), now) {
            Verdict::GoOn => Ok(()),
            Verdict::Stuck => Err(Ended::Stuck(STUCK)),
            Verdict::StandBack => Err(Ended::CutOff(STUCK)),
        }
    }

    fn outlook(&self) -> State {
        if !self.commit.synced() {
            return State::CutOff;
        }
        let waits = self.commit.is_waiting_only() || self.commit.held_back().is_some();
        if waits || !self.unsynced.is_empty() { State::Content } else { State::Behind }
    }

    fn tell_nodes(&self) {
        if self.unsynced.contains(&Kind::Node) {
            return;
        }
        let chassis =
            |node: &Node| node.annotations.get(crate::api::names::annotation::CHASSIS).cloned();
        let nodes: Nodes =
            self.store.iter::<Node>().map(|n| (n.name.clone(), chassis(n))).collect();
        self.nodes.send_if_modified(|current| {
            let changed = current.as_ref() != Some(&nodes);
            *current = Some(nodes);
            changed
        });
    }

    fn in_sync(&self) -> bool {
        self.unsynced.is_empty() && self.commit.synced()
    }

    fn is_settled(&self) -> bool {
        self.unsynced.is_empty()
            && (self.commit.settled() || self.commit.is_waiting_only())
            && self.ledger.is_idle()
    }

    /// Does all that is now possible.
    fn advance(&mut self, now: Instant) -> Result<(), Ended> {
        if self.in_sync() && !self.witnessed {
            self.witnessed = true;
            self.hear_witnesses();
        }
        if self.witnessed {
            self.start_writes();
        }
        if self.in_sync() {
            match self.commit.next(&self.engine, now) {
                Next::Idle => {}
                Next::Deposed => return Err(Ended::Deposed),
                Next::Send(transaction) => {
                    tracing::info!(
                        txn = self.commit.counters.transactions,
                        operations = transaction.operations.len(),
                        "northbound transaction"
                    );
                    let (client, done) = (self.ovsdb.clone(), self.done.clone());
                    let figures = self.figures.clone();
                    tokio::spawn(async move {
                        let start = Instant::now();
                        let result = client.transact(&transaction).await.map(|_| ());
                        figures.note_transaction(start.elapsed().as_secs_f64() * 1e3, &result);
                        // The loop may have ended meanwhile.
                        let _ = done.send(Done::Transaction(result));
                    });
                }
            }
            self.publish_committed();
        }
        self.note_progress();
        Ok(())
    }

    fn start_writes(&mut self) {
        let seed = || {
            use std::hash::{BuildHasher, Hasher};
            std::collections::hash_map::RandomState::new().build_hasher().finish()
        };
        let commit = &self.commit;
        let northbound = Northbound {
            committed: &|owner| commit.is_committed(owner),
            holds: &|row| !commit.synced() || commit.replica().by_id(row.table, &row.id).is_some(),
        };
        let actions = self.ledger.evaluate(&self.store, seed, &northbound, WRITES);
        self.report_waiting();
        for action in actions {
            let claimant = self.claimant(&action);
            let owner = self.owner_reference(&claimant);
            let seen = self.seen.get(Kind::Ip, action.port()).cloned();
            let (client, done) = (self.kube.clone(), self.done.clone());
            tokio::spawn(async move {
                let result = apply_action(client, &action, owner, seen).await;
                let _ = done.send(Done::Write(action, claimant, result));
            });
        }
    }

    /// Claimants that got no address, and those that have one now.
    fn report_waiting(&mut self) {
        for claimant in self.ledger.take_news() {
            let problems = self.ledger.problem(&claimant).cloned().into_iter().collect();
            self.publisher.reconcile(&claimant.owner(), Vec::new(), problems);
        }
    }

    fn publish_owner(&mut self, owner: &Owner) {
        let derived = self.engine.derived(owner).cloned().unwrap_or_default();
        self.publisher.reconcile(owner, derived.wanted, derived.problems);
        // What stood against a subnet may be gone.
        if owner.feature == "subnet" {
            self.publish_ledger(Kind::Subnet, &owner.key);
        }
    }

    /// Hands over what owners want as soon as their facts are in the database.
    fn publish_committed(&mut self) {
        if std::mem::take(&mut self.silent_start) {
            // Looked at when half of the others were not known yet.
            for subnet in self.store.keys(Kind::Subnet).cloned().collect::<Vec<_>>() {
                self.publish_ledger(Kind::Subnet, &subnet);
            }
            let (ready, waiting) = std::mem::take(&mut self.to_publish)
                .into_iter()
                .partition::<BTreeSet<Owner>, _>(|owner| self.commit.is_committed(owner));
            self.to_publish = waiting;
            ready.iter().for_each(|owner| self.publish_owner(owner));
        }
        for owner in self.commit.take_completed() {
            if self.to_publish.contains(&owner) && self.commit.is_committed(&owner) {
                self.to_publish.remove(&owner);
                self.publish_owner(&owner);
            }
        }
        self.publisher.flush(&self.seen);
    }

    fn note_progress(&mut self) {
        let mut waiting: Vec<String> =
            self.unsynced.iter().map(|k| format!("the list of {}", k.name())).collect();
        if !self.commit.synced() {
            waiting.push("the northbound database".into());
        } else if !self.commit.settled() {
            waiting.push("transactions".into());
        }
        let settled = self.is_settled();
        self.was_settled |= settled;
        let counters = &self.commit.counters;
        let progress = Progress {
            settled,
            ready: self.was_settled && self.commit.synced(),
            waiting_for: waiting,
            waiting_claimants: self.ledger.problems().count(),
            transactions: counters.transactions,
            operations: counters.operations,
            refused: counters.refused,
            drift: counters.drift,
            owner_runs: self.engine.runs(),
            oracle_differences: self.oracle.differences,
            oracle_runs: self.oracle.runs,
            pods: self.store.len(Kind::Pod),
            rows: self.engine.desired().row_count(),
        };
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }
}
