//! Keeps OVN_Northbound equal to the desired facts: one transaction in flight, batches, epoch
//! fencing, bisection of refused batches, drift. A state machine without I/O: the loop feeds
//! events and sends what [`Commit::next`] returns.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use crate::{
    api::Kind,
    ovsdb::{
        client::OvsdbError,
        datum::{Atom, Datum},
        replica::{Change, ChangeKind, Replica, ReplicaError, Scope, Update},
        row::RowKey,
        schema::{Column, Table, nb},
        transaction::{Condition, Item, Mutation, Operation, Target, Transaction},
    },
    plan::{Batch, Cause, Engine, Pending, Refresh, Touch, diff, fuse, touch_of},
    store::Owner,
};

/// Owners in one transaction: measured, larger batches only add latency (0.21 ms per port in
/// batches against 1.8 ms one by one on a raft of 3).
const BATCH: usize = 200;
/// Back-off of an owner whose own facts are refused.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LAST_DELAY: Duration = Duration::from_secs(300);

/// `external_ids` key of NB_Global that fences deposed leaders.
pub const EPOCH_KEY: &str = "kube-ovn/epoch";

/// What to do next.
#[derive(Debug)]
pub enum Next {
    /// Nothing until the next event.
    Idle,
    /// Send this and report the result to [`Commit::finished`].
    Send(Transaction),
    /// Another controller has taken over: stop at once.
    Deposed,
}

/// What an answer meant.
#[derive(Debug, PartialEq, Eq)]
pub enum Finished {
    Committed,
    /// Refused or lost; it is tried again.
    Again,
    /// Another controller has taken over: stop at once.
    Deposed,
}

#[derive(Debug)]
struct Block {
    until: Instant,
    delay: Duration,
    reason: String,
}

#[derive(Debug)]
enum Flight {
    Epoch(u64),
    Batch { batch: Batch, plan: diff::Plan },
}

/// Figures for metrics, the status command and tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    pub transactions: u64,
    pub operations: u64,
    pub refused: u64,
    /// Rows of ours that somebody else changed.
    pub drift: u64,
}

pub struct Commit {
    replica: Replica,
    synced: bool,
    /// Our epoch, once it is known to stand in the database we are connected to.
    epoch: Option<u64>,
    /// The epoch that we took last; a higher one in the database is another leader's.
    taken: Option<u64>,
    pending: Pending,
    /// Halves of a refused batch, tried before anything new.
    pieces: Vec<Batch>,
    flight: Option<Flight>,
    blocked: HashMap<Owner, Block>,
    verdict: fuse::Verdict,
    inspect: bool,
    accepted: bool,
    /// Features whose rows may go without a Kubernetes delete.
    switched_off: BTreeSet<&'static str>,
    /// Owners whose facts are in the database since the last [`Commit::take_completed`].
    completed: Vec<Owner>,
    pub counters: Counters,
}

/// Whether the operator accepts a plan that deletes much (`--accept-plan`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptPlan {
    Yes,
    No,
}

/// Every column of every table of the northbound schema, as the client monitors it.
pub fn monitored() -> Vec<(&'static Table, &'static [Column])> {
    // Other columns of these tables are written by northd (status, counters) and would wake us
    // for nothing.
    const SKIPPED: &[(&str, &str)] = &[
        ("NB_Global", "nb_cfg"),
        ("NB_Global", "nb_cfg_timestamp"),
        ("NB_Global", "sb_cfg"),
        ("NB_Global", "sb_cfg_timestamp"),
        ("NB_Global", "hv_cfg"),
        ("NB_Global", "hv_cfg_timestamp"),
        ("NB_Global", "connections"),
        ("NB_Global", "ssl"),
        ("Logical_Switch_Port", "up"),
        ("Logical_Switch_Port", "dynamic_addresses"),
    ];
    let tables = nb::DATABASE.tables.iter().filter(|t| !matches!(t.name, "Connection" | "SSL"));
    tables
        .map(|table| {
            let wanted = table.all_columns().filter(|c| !SKIPPED.contains(&(table.name, c.name())));
            let columns: &'static [Column] = Box::leak(wanted.collect());
            (*table, columns)
        })
        .collect()
}

impl Commit {
    pub fn new(accept: AcceptPlan) -> Self {
        Commit {
            replica: Replica::new(&nb::DATABASE, &monitored()),
            synced: false,
            epoch: None,
            taken: None,
            pending: Pending::default(),
            pieces: Vec::new(),
            flight: None,
            blocked: HashMap::new(),
            verdict: fuse::Verdict::default(),
            inspect: false,
            accepted: accept == AcceptPlan::Yes,
            switched_off: BTreeSet::new(),
            completed: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// A flag of the operator turns the feature off: that all its rows go is what was asked for.
    pub fn switch_off(&mut self, feature: &'static str) {
        self.switched_off.insert(feature);
    }

    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Connected, and the replica is current.
    pub fn synced(&self) -> bool {
        self.synced
    }

    /// Nothing pending, nothing in flight, nobody blocked: the last generation is applied.
    pub fn settled(&self) -> bool {
        self.synced && self.flight.is_none() && self.pieces.is_empty() && self.pending.is_empty()
    }

    /// Nothing can be done now: what is pending waits for another row, a back-off or the operator.
    pub fn is_waiting_only(&self) -> bool {
        self.synced && self.flight.is_none() && self.pieces.is_empty()
    }

    /// Owners that went through, by a transaction or because nothing had to be done.
    pub fn take_completed(&mut self) -> Vec<Owner> {
        std::mem::take(&mut self.completed)
    }

    /// Whether the facts of the owner are in the database.
    pub fn is_committed(&self, owner: &Owner) -> bool {
        !self.pending.contains(owner)
            && !self.pieces.iter().any(|b| holds(b, owner))
            && !matches!(&self.flight, Some(Flight::Batch { batch, .. }) if holds(batch, owner))
    }

    /// Owners whose facts the database refuses, with its reason.
    pub fn refusals(&self) -> impl Iterator<Item = (&Owner, &str)> {
        self.blocked.iter().map(|(owner, block)| (owner, block.reason.as_str()))
    }

    /// The plan that waits for `--accept-plan`, if one does.
    pub fn held_back(&self) -> Option<&fuse::Verdict> {
        (!self.accepted && self.verdict.blown()).then_some(&self.verdict)
    }

    /// Takes in what the engine computed.
    pub fn add(&mut self, refresh: &mut Refresh) {
        for (owner, cause, touches) in refresh.touched.drain(..) {
            // New facts deserve a new try.
            self.blocked.remove(&owner);
            self.pending.add(owner, cause, touches);
        }
        self.inspect = true;
    }

    /// A (re)connection. A snapshot makes everything uncertain: all owners are compared again.
    pub fn connected(&mut self, engine: &Engine, update: &Update) -> Result<(), ReplicaError> {
        self.lost_flight();
        let changes = self.replica.apply(update)?;
        self.synced = true;
        self.epoch = None;
        match update.scope {
            Scope::Snapshot => self.compare_all(engine),
            Scope::Delta => self.note_changes(engine, &changes),
        }
        Ok(())
    }

    pub fn disconnected(&mut self) {
        self.lost_flight();
        self.synced = false;
    }

    fn lost_flight(&mut self) {
        if let Some(Flight::Batch { batch, .. }) = self.flight.take() {
            self.pending.restore(batch);
        }
        for batch in std::mem::take(&mut self.pieces) {
            self.pending.restore(batch);
        }
    }

    /// Changes that the server reports.
    pub fn updated(&mut self, engine: &Engine, update: &Update) -> Result<(), ReplicaError> {
        let changes = self.replica.apply(update)?;
        match update.scope {
            Scope::Snapshot => self.compare_all(engine),
            Scope::Delta => self.note_changes(engine, &changes),
        }
        Ok(())
    }

    /// Touches all facts of all owners, and every row with an identity of ours that nobody wants.
    pub fn compare_all(&mut self, engine: &Engine) {
        for (owner, derived) in engine.owners() {
            let touches = derived.facts.iter().map(touch_of).collect();
            self.pending.add(owner.clone(), Cause::Changed, touches);
        }
        for table in nb::DATABASE.tables {
            for row in self.replica.rows(table) {
                let Some(id) = row.id() else { continue };
                let key = RowKey { table, id: id.clone() };
                if engine.desired().row(&key).is_none() {
                    self.pending.add(
                        orphan(&key),
                        Cause::Changed,
                        BTreeSet::from([Touch::Row(key)]),
                    );
                }
            }
        }
        self.inspect = true;
    }

    /// Rows of ours that changed although we did not write them: their owners are compared again.
    fn note_changes(&mut self, engine: &Engine, changes: &[Change]) {
        let mut stale: BTreeSet<Owner> = BTreeSet::new();
        for change in changes {
            let row = self.replica.get(change.table, change.uuid).or(change.before.as_ref());
            let id = row.and_then(|r| r.id()).or(change.before.as_ref().and_then(|r| r.id()));
            let key = match id {
                Some(id) => RowKey { table: change.table, id: id.clone() },
                None if change.table == &nb::NB_GLOBAL => RowKey::singleton(change.table),
                None => continue,
            };
            if self.is_own_write(change, &key) {
                continue;
            }
            let owners: Vec<Owner> = engine.desired().owners(&key).cloned().collect();
            if owners.is_empty() && change.kind != ChangeKind::Delete && !key.is_singleton() {
                self.pending.add(orphan(&key), Cause::Changed, BTreeSet::from([Touch::Row(key)]));
            }
            stale.extend(owners);
        }
        for owner in stale {
            let Some(derived) = engine.derived(&owner) else { continue };
            self.counters.drift += 1;
            let touches = derived.facts.iter().map(touch_of).collect();
            self.pending.add(owner, Cause::Changed, touches);
        }
    }

    fn is_own_write(&self, change: &Change, key: &RowKey) -> bool {
        match &self.flight {
            Some(Flight::Epoch(_)) => key.is_singleton(),
            Some(Flight::Batch { plan, .. }) => {
                plan.written.contains(&change.uuid) || plan.inserted.contains(key)
            }
            None => false,
        }
    }

    /// The next transaction, if one is needed and allowed.
    pub fn next(&mut self, engine: &Engine, now: Instant) -> Next {
        if !self.synced || self.flight.is_some() {
            return Next::Idle;
        }
        let Some(epoch) = self.epoch else { return self.take_epoch(engine, now) };
        self.inspect_pending(engine);
        // Batches that turn out to need nothing (a restart) cost no transaction. Every pending owner
        // is looked at once: those that wait for another row must not hide those behind them.
        let mut left = self.pending.len() + self.pieces.iter().map(Batch::len).sum::<usize>();
        while left > 0 {
            let batch = match self.pieces.pop() {
                Some(piece) => piece,
                None => self.take_batch(now),
            };
            if batch.is_empty() {
                break;
            }
            left = left.saturating_sub(batch.len());
            let plan = diff::plan(engine.desired(), &self.replica, &batch);
            if plan.is_empty() {
                self.complete(batch, &plan);
                continue;
            }
            let mut transaction = plan.transaction.clone();
            transaction.operations.insert(0, fence(epoch));
            self.counters.transactions += 1;
            self.counters.operations += plan.transaction.operations.len() as u64;
            self.flight = Some(Flight::Batch { batch, plan });
            return Next::Send(transaction);
        }
        // One oversized plan was accepted, not every later one; an owner that waits for something
        // else does not keep it open.
        if self.accepted {
            self.inspect = true;
            self.inspect_pending(engine);
            self.accepted = self.verdict.blown();
        }
        Next::Idle
    }

    fn take_batch(&mut self, now: Instant) -> Batch {
        let held = self.held_back().map(|v| v.suspects.clone()).unwrap_or_default();
        let blocked = &self.blocked;
        self.pending.take(BATCH, |owner| {
            held.contains(owner) || blocked.get(owner).is_some_and(|b| b.until > now)
        })
    }

    fn inspect_pending(&mut self, engine: &Engine) {
        if !std::mem::take(&mut self.inspect) {
            return;
        }
        let replica = &self.replica;
        let owned = nb::DATABASE
            .tables
            .iter()
            .map(|t| replica.rows(t).filter(|r| r.id().is_some()).count())
            .sum();
        let exists = |touch: &Touch| {
            let key = touch.row();
            let feature = key.id.split(':').next().unwrap_or_default();
            !self.switched_off.contains(feature) && replica.by_id(key.table, &key.id).is_some()
        };
        self.verdict = fuse::inspect(&self.pending, engine.desired(), owned, exists);
    }

    /// A batch is in the database, but for touches that wait for another row: those go to the end
    /// of the queue.
    fn complete(&mut self, batch: Batch, plan: &diff::Plan) {
        for (owner, ..) in batch.owners {
            match plan.deferred.get(&owner) {
                Some(touches) => self.pending.add(owner, Cause::Changed, touches.clone()),
                None => {
                    self.blocked.remove(&owner);
                    self.completed.push(owner);
                }
            }
        }
    }

    fn take_epoch(&mut self, engine: &Engine, now: Instant) -> Next {
        let Some(global) = self.replica.singleton(&nb::NB_GLOBAL) else { return Next::Idle };
        let old = global.entry(nb::nb_global::EXTERNAL_IDS, EPOCH_KEY).cloned();
        let found: u64 = old.as_ref().and_then(|t| t.parse().ok()).unwrap_or(0);
        match self.taken {
            Some(taken) if found == taken => {
                self.epoch = Some(taken);
                return self.next(engine, now);
            }
            Some(taken) if found > taken => return Next::Deposed,
            // Lower or missing: the database was restored or rebuilt.
            _ => {}
        }
        let number = found.max(self.taken.unwrap_or(0)) + 1;
        let mut operations = Vec::new();
        if let Some(old) = old {
            operations.push(Operation::Wait {
                table: &nb::NB_GLOBAL,
                condition: epoch_condition(old.into()),
            });
        }
        let value = BTreeMap::from([(EPOCH_KEY.into(), Item::Atom(number.to_string().into()))]);
        operations.push(Operation::Mutate {
            table: &nb::NB_GLOBAL,
            target: Target::Uuid(global.uuid),
            mutations: Mutation::put(nb::nb_global::EXTERNAL_IDS, value).into(),
        });
        self.flight = Some(Flight::Epoch(number));
        Next::Send(Transaction { operations })
    }

    /// The answer to the transaction that [`Commit::next`] returned.
    pub fn finished(&mut self, result: Result<(), OvsdbError>, now: Instant) -> Finished {
        match (self.flight.take(), result) {
            (Some(Flight::Epoch(number)), Ok(())) => {
                self.epoch = Some(number);
                self.taken = Some(number);
                Finished::Committed
            }
            (Some(Flight::Batch { batch, plan }), Ok(())) => {
                self.complete(batch, &plan);
                Finished::Committed
            }
            (Some(Flight::Epoch(_)), Err(_)) => Finished::Again,
            (Some(Flight::Batch { batch, .. }), Err(OvsdbError::Refused { refusal, .. })) => {
                if refusal.is_unmet_wait() {
                    return Finished::Deposed;
                }
                self.counters.refused += 1;
                self.bisect(batch, refusal.to_string(), now);
                Finished::Again
            }
            (Some(Flight::Batch { batch, .. }), Err(_)) => {
                self.pending.restore(batch);
                Finished::Again
            }
            // The connection was lost and made anew before the answer came.
            (None, _) => Finished::Again,
        }
    }

    /// Finds the owner whose facts are refused; the others go on.
    fn bisect(&mut self, batch: Batch, reason: String, now: Instant) {
        if batch.len() > 1 {
            let (first, second) = batch.halves();
            self.pieces.push(second);
            self.pieces.push(first);
            return;
        }
        for (owner, cause, touches) in batch.owners {
            let delay = self.blocked.get(&owner).map_or(FIRST_DELAY, |b| b.delay * 2);
            let delay = delay.min(LAST_DELAY);
            let block = Block { until: now + delay, delay, reason: reason.clone() };
            self.blocked.insert(owner.clone(), block);
            self.pending.add(owner, cause, touches);
        }
    }
}

fn holds(batch: &Batch, owner: &Owner) -> bool {
    batch.owners.iter().any(|(o, ..)| o == owner)
}

/// Whoever a row of ours was made for, that no owner wants any more. All rows of one go together: a
/// port group and its ACLs in different transactions would be refused, row by row, until bisection
/// has found a way through.
fn orphan(key: &RowKey) -> Owner {
    Owner { feature: "orphan", kind: Kind::Settings, key: key.maker().into() }
}

fn epoch_condition(number: Atom) -> Condition {
    let entry = Datum::Map(BTreeMap::from([(EPOCH_KEY.into(), number)]));
    Condition::Includes(nb::nb_global::EXTERNAL_IDS, entry)
}

/// Fails the transaction unless our epoch is still the last one.
fn fence(epoch: u64) -> Operation {
    Operation::Wait { table: &nb::NB_GLOBAL, condition: epoch_condition(epoch.to_string().into()) }
}
