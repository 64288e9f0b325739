//! Publishing: what features want of Kubernetes objects, against what was seen of them.
//!
//! Several owners may want things of one object; their wishes are merged per object, and each
//! object has one writer at a time. [`decide`] holds the pure part; `write` only sends.
//!
//! A round of the controller calls [`Publisher::note`] for each change of the watches and
//! [`Publisher::reconcile`] for each owner with a new result, and after the commit
//! [`Publisher::flush`] once: so an object is judged by all of its owners together.

mod condition;
mod decide;
mod event;
mod resource;
mod write;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use k8s_openapi::jiff::Timestamp;
use kube::Client;

use crate::{
    api::{Invalid, Kind, Text},
    store::{
        Owner, Problem, Wanted,
        watch::{Change, SeenMap, What},
    },
};

pub use condition::conditions;
pub use decide::{Decision, Judgement, Notice, Part, Patch, Wish, decide, difference, finalizers};
pub use event::{event_name, event_object};
pub use write::{Failure, PublishError, classify};

use write::{Job, Writer};

/// An object that is written to.
pub type Target = (Kind, Text);

/// Feature name under which findings of the parsers are kept.
const PARSER: &str = "parse";

/// Everything one owner wants.
#[derive(Debug, Clone, Default, PartialEq)]
struct Wishes {
    wanted: Vec<Wanted>,
    problems: Vec<Problem>,
}

impl Wishes {
    fn targets(&self) -> BTreeSet<Target> {
        let wanted = self.wanted.iter().map(|w| w.target()).map(|(kind, key)| (kind, key.clone()));
        wanted.chain(self.problems.iter().map(|p| (p.kind, p.key.clone()))).collect()
    }
}

/// Keeps all wishes and brings them to the API server.
pub struct Publisher {
    owners: HashMap<Owner, Wishes>,
    targets: HashMap<Target, BTreeSet<Owner>>,
    /// Last message sent per object and reason, so that an Event is sent once per change.
    sent: HashMap<Target, HashMap<&'static str, String>>,
    /// Objects to compare at the next flush.
    dirty: BTreeSet<Target>,
    writer: Writer,
}

impl Publisher {
    /// `component` is the source of Events.
    pub fn new(client: Client, component: &str) -> Self {
        Publisher {
            owners: HashMap::new(),
            targets: HashMap::new(),
            sent: HashMap::new(),
            dirty: BTreeSet::new(),
            writer: Writer::new(client, component),
        }
    }

    /// Replaces what `owner` wants; nothing at all when the owner is gone.
    pub fn reconcile(&mut self, owner: &Owner, wanted: Vec<Wanted>, problems: Vec<Problem>) {
        let new = Wishes { wanted, problems };
        let old = self.owners.remove(owner).unwrap_or_default();
        let mut touched = old.targets();
        for target in &touched {
            if let Some(owners) = self.targets.get_mut(target) {
                owners.remove(owner);
            }
        }
        // The object of an owner without problems gets its good conditions, too.
        let judged = condition::judgement(owner.kind) == Judgement::Conditions;
        let judged = judged && owner.feature != PARSER;
        let judged = judged.then(|| (owner.kind, owner.key.clone()));
        let targets: BTreeSet<Target> = new.targets().into_iter().chain(judged).collect();
        if !targets.is_empty() {
            self.owners.insert(owner.clone(), new);
        }
        for target in &targets {
            self.targets.entry(target.clone()).or_default().insert(owner.clone());
        }
        touched.extend(targets);
        self.dirty.extend(touched);
    }

    /// Takes note of a change on the API server: what others overwrote is written again, findings
    /// of the parsers become problems.
    pub fn note(&mut self, change: &Change) {
        let (kind, key) = (change.kind, change.key.clone());
        let parser = Owner { feature: PARSER, kind, key: key.clone() };
        match &change.what {
            What::Refused(refused, _) => {
                self.reconcile(&parser, Vec::new(), findings(kind, &key, &refused.invalid));
            }
            What::Upsert(..) if self.owners.contains_key(&parser) => {
                self.reconcile(&parser, Vec::new(), Vec::new());
                self.dirty.insert((kind, key));
            }
            What::Upsert(..) => {
                self.dirty.insert((kind, key));
            }
            What::Deleted | What::AbsentAfterRelist => {
                self.reconcile(&parser, Vec::new(), Vec::new());
                self.sent.remove(&(kind, key));
            }
        }
    }

    /// Compares and writes everything that changed since the last flush.
    pub fn flush(&mut self, seen: &SeenMap) {
        for target in std::mem::take(&mut self.dirty) {
            self.refresh(&target, seen);
        }
    }

    /// Objects with a write under way or waiting.
    pub fn pending(&self) -> usize {
        self.writer.pending()
    }

    fn refresh(&mut self, target: &Target, seen: &SeenMap) {
        let Some(owners) = self.targets.get(target) else { return };
        if owners.is_empty() {
            self.targets.remove(target);
            self.sent.remove(target);
            return;
        }
        let Some(seen) = seen.get(target.0, &target.1) else { return };
        let mut wish = Wish::new(condition::judgement(target.0));
        for wishes in owners.iter().filter_map(|owner| self.owners.get(owner)) {
            wishes
                .wanted
                .iter()
                .filter(|w| w.target() == (target.0, &target.1))
                .for_each(|w| wish.add(w));
            let problems = wishes.problems.iter();
            wish.problems
                .extend(problems.filter(|p| (p.kind, &p.key) == (target.0, &target.1)).cloned());
        }
        wish.problems.sort();
        wish.problems.dedup();
        let decision = decide(target.0, &wish, seen, Timestamp::now());
        let sent = self.sent.entry(target.clone()).or_default();
        sent.retain(|reason, _| decision.standing.contains(reason));
        for notice in decision.notices {
            let last = sent.insert(notice.reason, notice.message.clone());
            if last.as_ref() != Some(&notice.message) {
                self.writer.announce(target.clone(), Arc::clone(seen), notice);
            }
        }
        if !decision.patches.is_empty() {
            self.writer
                .submit(target.clone(), Job { wish: Arc::new(wish), seen: Arc::clone(seen) });
        }
    }
}

fn findings(kind: Kind, key: &Text, invalid: &[Invalid]) -> Vec<Problem> {
    let problem = |finding: &Invalid| Problem {
        kind,
        key: key.clone(),
        reason: finding.reason,
        message: finding.message.clone(),
    };
    invalid.iter().map(problem).collect()
}
