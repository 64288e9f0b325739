//! What the database does not take, or the fuse holds back, as problems of the objects concerned.

use std::collections::BTreeMap;

use super::Reconciler;
use crate::{
    api::{Kind, Settings},
    plan::fuse::Verdict,
    store::{Owner, Problem},
};

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Told {
    refusals: BTreeMap<Owner, String>,
    held_back: Option<(usize, usize)>,
}

impl Reconciler {
    /// Owners whose facts the database refuses, and those that it takes again.
    pub(super) fn tell_refusals(&mut self) {
        let now: BTreeMap<Owner, String> =
            self.commit.refusals().map(|(owner, reason)| (owner.clone(), reason.into())).collect();
        if now == self.told.refusals {
            return;
        }
        for owner in self.told.refusals.keys().filter(|owner| !now.contains_key(owner)) {
            self.publisher.reconcile(&teller(owner), Vec::new(), Vec::new());
        }
        for (owner, reason) in now.iter().filter(|(o, r)| self.told.refusals.get(o) != Some(r)) {
            tracing::warn!(kind = owner.kind.name(), key = %owner.key, feature = owner.feature, %reason,
                "the northbound database refuses what this object asks for");
            self.publisher.reconcile(&teller(owner), Vec::new(), vec![refused(owner, reason)]);
        }
        self.told.refusals = now;
    }

    /// The plan that waits for `--accept-plan`, once each time it changes: in the log, and at the
    /// default Vpc for those who do not read logs.
    pub(super) fn tell_held_back(&mut self) {
        let verdict = self.commit.held_back().map(|v| (v.rows, v.limit));
        if verdict == self.told.held_back {
            return;
        }
        self.told.held_back = verdict;
        let Some(settings) = self.store.get::<Settings>("") else { return };
        let key = settings.cluster_router.clone();
        let owner = Owner { feature: "fuse", kind: Kind::Vpc, key };
        let problem = self.commit.held_back().map(|v| held_back(&owner, v));
        match &problem {
            Some(problem) => tracing::error!("{}", problem.message),
            None => tracing::info!("no plan is held back any more"),
        }
        self.publisher.reconcile(&owner, Vec::new(), problem.into_iter().collect());
    }
}

/// Under a name of its own, so that it does not replace what the feature wants.
fn teller(of: &Owner) -> Owner {
    Owner { feature: "refusal", ..of.clone() }
}

/// The problem of an object whose rows the database refuses.
pub fn refused(owner: &Owner, reason: &str) -> Problem {
    Problem {
        kind: owner.kind,
        key: owner.key.clone(),
        reason: "NorthboundRefused",
        message: format!(
            "the northbound database refuses the rows of feature {}: {reason}; they are tried \
             again at growing intervals, everything else goes on",
            owner.feature
        ),
    }
}

/// The problem of a plan that the fuse stopped.
pub fn held_back(owner: &Owner, verdict: &Verdict) -> Problem {
    Problem {
        kind: owner.kind,
        key: owner.key.clone(),
        reason: "PlanHeldBack",
        message: format!(
            "a plan deletes {} rows of the northbound database without a Kubernetes delete, the \
             limit is {}: nothing of it is carried out; look at 'kubectl ko audit', then restart \
             one controller with --accept-plan, if it is right",
            verdict.rows, verdict.limit
        ),
    }
}
