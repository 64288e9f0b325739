use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    api::{Kind, Text},
    ovsdb::row::Fact,
    store::{Feature, Output, Owner, Problem, Read, Store, View, Wanted},
};

use super::desired::{Desired, Touch, normalized, touch_of};

/// Why an owner ran again; the fuse lets explicit deletes and edits pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A Kubernetes object was deleted before our eyes.
    Deleted,
    /// The owner's own object is there and was read anew: what it no longer asks for may go.
    Edited,
    /// Anything else: another object that it read, absence after a relist, a restart.
    Changed,
}

impl Cause {
    /// What the cause is to others that read the object. An edit of a subnet explains the rows of
    /// the subnet, not those of all its pods.
    fn of_reader(self) -> Self {
        match self {
            Cause::Edited => Cause::Changed,
            cause => cause,
        }
    }
}

/// The stored result of one owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Derived {
    pub facts: Vec<Fact>,
    pub problems: Vec<Problem>,
    pub wanted: Vec<Wanted>,
    /// Ordered.
    reads: Box<[Read]>,
}

/// What a refresh changed.
#[derive(Debug, Default)]
pub struct Refresh {
    /// Database places per owner, in the order in which owners ran.
    pub touched: Vec<(Owner, Cause, BTreeSet<Touch>)>,
    /// Owners whose problems or wishes changed (also those that are gone).
    pub republish: BTreeSet<Owner>,
    /// Owners that ran, for counters.
    pub ran: usize,
}

/// Keeps the result of every owner up to date with the store.
#[derive(Debug)]
pub struct Engine {
    features: &'static [Feature],
    by_kind: BTreeMap<Kind, Vec<usize>>,
    derived: HashMap<Owner, Derived>,
    readers: HashMap<Read, Readers>,
    desired: Desired,
    runs: u64,
}

impl Engine {
    pub fn new(features: &'static [Feature]) -> Self {
        let mut by_kind: BTreeMap<Kind, Vec<usize>> = BTreeMap::new();
        for (i, feature) in features.iter().enumerate() {
            by_kind.entry(feature.owner).or_default().push(i);
        }
        Engine {
            features,
            by_kind,
            derived: HashMap::new(),
            readers: HashMap::new(),
            desired: Desired::default(),
            runs: 0,
        }
    }

    /// A new engine with every owner of the store computed from scratch: start-up and the oracle.
    pub fn from_store(features: &'static [Feature], store: &Store) -> Self {
        let mut engine = Engine::new(features);
        let reads: Vec<Read> = Kind::ALL
            .iter()
            .flat_map(|&kind| store.keys(kind).map(move |key| Read::Object(kind, key.clone())))
            .collect();
        engine.refresh(store, reads.iter().map(|r| (r, Cause::Changed)));
        engine
    }

    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    pub fn derived(&self, owner: &Owner) -> Option<&Derived> {
        self.derived.get(owner)
    }

    pub fn owners(&self) -> impl Iterator<Item = (&Owner, &Derived)> {
        self.derived.iter()
    }

    /// Owners run since the start: the work counter of the tests.
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// All problems, ordered, for conditions and the status command.
    pub fn problems(&self) -> BTreeSet<&Problem> {
        self.derived.values().flat_map(|d| &d.problems).collect()
    }

    /// Re-runs the owners that read any of `changes`.
    pub fn refresh<'r>(
        &mut self,
        store: &Store,
        changes: impl IntoIterator<Item = (&'r Read, Cause)>,
    ) -> Refresh {
        let mut stale: BTreeMap<Owner, Cause> = BTreeMap::new();
        let mut mark = |owner: Owner, cause: Cause| {
            let slot = stale.entry(owner).or_insert(cause);
            *slot = (*slot).min(cause);
        };
        for (read, cause) in changes {
            if let Read::Object(kind, key) = read {
                for feature in self.by_kind.get(kind).into_iter().flatten() {
                    let feature = self.features[*feature].name;
                    mark(Owner { feature, kind: *kind, key: key.clone() }, cause);
                }
            }
            for owner in self.readers.get(read).into_iter().flat_map(Readers::iter) {
                mark(owner.clone(), cause.of_reader());
            }
        }
        // What is gone goes first: its addresses may be those of something new.
        let (here, gone): (Vec<_>, Vec<_>) =
            stale.into_iter().partition(|(owner, _)| store.contains(owner.kind, &owner.key));
        let mut refresh = Refresh::default();
        for (owner, cause) in gone.into_iter().chain(here) {
            self.run_owner(store, owner, cause, &mut refresh);
        }
        refresh
    }

    fn run_owner(&mut self, store: &Store, owner: Owner, cause: Cause, refresh: &mut Refresh) {
        let Some(feature) = self.features.iter().find(|f| f.name == owner.feature) else { return };
        let new = if store.contains(owner.kind, &owner.key) {
            self.runs += 1;
            refresh.ran += 1;
            let view = View::new(store);
            let Output { facts, mut problems, wanted } = (feature.desired)(&view, &owner.key);
            problems.sort();
            let reads = view.into_reads().into_iter().collect();
            Some(Derived { facts: normalized(facts), problems, wanted, reads })
        } else {
            None
        };
        self.replace(owner, new, cause, refresh);
    }

    fn replace(&mut self, owner: Owner, new: Option<Derived>, cause: Cause, refresh: &mut Refresh) {
        let old = self.derived.remove(&owner);
        if old.is_none() && new.is_none() {
            return;
        }
        let gone = new.is_none();
        let old = old.unwrap_or_default();
        let new = new.unwrap_or_default();
        for read in missing_in(&old.reads, &new.reads) {
            if let Some(owners) = self.readers.get_mut(read)
                && owners.remove(&owner) == Left::Nobody
            {
                self.readers.remove(read);
            }
        }
        for read in missing_in(&new.reads, &old.reads) {
            match self.readers.get_mut(read) {
                Some(owners) => owners.insert(owner.clone()),
                None => {
                    self.readers.insert(read.clone(), Readers::One(owner.clone()));
                }
            }
        }
        let touches = self.exchange_facts(&owner, &old.facts, &new.facts);
        if !touches.is_empty() {
            refresh.touched.push((owner.clone(), cause, touches));
        }
        if old.wanted != new.wanted || old.problems != new.problems {
            refresh.republish.insert(owner.clone());
        }
        if !gone {
            self.derived.insert(owner, new);
        }
    }

    fn exchange_facts(&mut self, owner: &Owner, old: &[Fact], new: &[Fact]) -> BTreeSet<Touch> {
        let mut touches = BTreeSet::new();
        if old == new {
            return touches;
        }
        // Of two facts about one place the last one counts.
        let (before, after) = (by_touch(old), by_touch(new));
        for (touch, fact) in &before {
            if after.get(touch) != Some(fact) {
                self.desired.remove(owner, fact);
                touches.insert(touch.clone());
            }
        }
        for (touch, fact) in &after {
            if before.get(touch) != Some(fact) {
                self.desired.insert(owner, fact);
                touches.insert(touch.clone());
            }
        }
        touches
    }

    /// Compares with a recomputation from scratch. Empty means that every incremental step was
    /// right; otherwise the owners that differ.
    pub fn differences(&self, store: &Store) -> Vec<Owner> {
        let fresh = Engine::from_store(self.features, store);
        let mut owners: BTreeSet<&Owner> = self.derived.keys().collect();
        owners.extend(fresh.derived.keys());
        let wrong = |o: &&&Owner| self.derived.get(**o) != fresh.derived.get(**o);
        let mut all: Vec<Owner> = owners.iter().filter(wrong).map(|o| (*o).clone()).collect();
        if all.is_empty() && self.desired != fresh.desired {
            all.extend(self.derived.keys().next().cloned());
        }
        all
    }

    /// Replaces everything by a computation from scratch (after the oracle found a difference).
    pub fn rebuild(&mut self, store: &Store) {
        let runs = self.runs;
        *self = Engine::from_store(self.features, store);
        self.runs += runs;
    }

    /// The owner's facts, for tools.
    pub fn facts(&self, kind: Kind, key: &Text) -> impl Iterator<Item = &Fact> {
        self.derived
            .iter()
            .filter(move |(o, _)| o.kind == kind && o.key == *key)
            .flat_map(|(_, d)| &d.facts)
    }
}

/// Those of `all` that `other` lacks; both ordered.
fn missing_in<'a>(all: &'a [Read], other: &'a [Read]) -> impl Iterator<Item = &'a Read> {
    all.iter().filter(|read| other.binary_search(read).is_err())
}

/// Owners that read one thing. Most objects have a single reader, some (Settings) have all.
#[derive(Debug)]
enum Readers {
    One(Owner),
    Many(BTreeSet<Owner>),
}

#[derive(Debug, PartialEq, Eq)]
enum Left {
    Nobody,
    Somebody,
}

impl Readers {
    fn iter(&self) -> impl Iterator<Item = &Owner> {
        let (one, many) = match self {
            Readers::One(owner) => (Some(owner), None),
            Readers::Many(owners) => (None, Some(owners)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    fn insert(&mut self, owner: Owner) {
        match self {
            Readers::One(only) if *only == owner => {}
            Readers::One(only) => {
                *self = Readers::Many(BTreeSet::from([only.clone(), owner]));
            }
            Readers::Many(owners) => {
                owners.insert(owner);
            }
        }
    }

    fn remove(&mut self, owner: &Owner) -> Left {
        let empty = match self {
            Readers::One(only) => only == owner,
            Readers::Many(owners) => {
                owners.remove(owner);
                owners.is_empty()
            }
        };
        if empty { Left::Nobody } else { Left::Somebody }
    }
}

fn by_touch(facts: &[Fact]) -> HashMap<Touch, &Fact> {
    facts.iter().map(|fact| (touch_of(fact), fact)).collect()
}
