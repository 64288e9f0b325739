//! When everything is recomputed from scratch and compared (design: the oracle).
//!
//! First as soon as everything was applied once, then as often as it costs little: a cluster whose
//! recomputation takes up to 100 ms is checked every ten seconds, a slower one when that costs one
//! part in a thousand of a core, and at least every ten minutes.

use std::time::{Duration, Instant};

use crate::{controller::commit::Commit, plan::Engine, store::Store};

/// A quick oracle runs this often.
const OFTEN: Duration = Duration::from_secs(10);
/// ... and the slowest at least this often.
const SELDOM: Duration = Duration::from_secs(600);
/// What costs no more than this is quick.
const QUICK: Duration = Duration::from_millis(100);
/// A slower one takes at most one part in so many of a core.
const SHARE: u32 = 1000;

/// The time between two runs, given the processor time of the last one.
pub fn pause(cost: Duration) -> Duration {
    if cost <= QUICK { OFTEN } else { (cost * SHARE).clamp(OFTEN, SELDOM) }
}

/// How much of what is known is in the database at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    All,
    Part,
}

/// Counts of the oracle, and when it is due.
#[derive(Debug, Default)]
pub struct Oracle {
    pub runs: u64,
    /// Owners that a run corrected, in all.
    pub differences: u64,
    next: Option<Instant>,
}

impl Oracle {
    /// Whether to run now. Without a first moment of rest there is nothing to compare with.
    pub fn is_due(&self, now: Instant, applied: Applied) -> bool {
        match self.next {
            None => applied == Applied::All,
            Some(next) => now >= next,
        }
    }

    /// Notes a run that ended `now`.
    pub fn note(&mut self, now: Instant, cost: Duration, differences: usize) {
        self.runs += 1;
        self.differences += differences as u64;
        self.next = Some(now + pause(cost));
    }
}

/// Processor time of this thread: what a run costs, however busy the machine is.
fn thread_time() -> Duration {
    let spent = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID);
    spent.map(Duration::from).unwrap_or_default()
}

/// Recomputes all; a difference is repaired, and all facts are compared with the database anew.
/// Gives the number of owners that differed, and the cost.
pub(super) fn consult(
    engine: &mut Engine,
    commit: &mut Commit,
    store: &Store,
) -> (usize, Duration) {
    let before = thread_time();
    let differences = engine.differences(store);
    if !differences.is_empty() {
        tracing::error!(owners = ?differences, "incremental result differs from a full one");
        engine.rebuild(store);
    }
    commit.compare_all(engine);
    (differences.len(), thread_time().saturating_sub(before))
}
