//! When a leader that cannot commit makes room for another.

use std::time::{Duration, Instant};

use kube_ovn::controller::patience::{
    Patience, Rivals,
    State::{self, Behind, Content, CutOff},
    Verdict::{self, GoOn, StandBack, Stuck},
};

/// Verdicts of a run: `(second, state)` each; `None` = a transaction went through then.
fn run(rivals: Rivals, steps: &[(u64, Option<State>)]) -> Vec<Verdict> {
    let (mut patience, begin) = (Patience::new(rivals), Instant::now());
    let step = |(second, state): &(u64, Option<State>)| match state {
        Some(state) => Some(patience.observe(*state, begin + Duration::from_secs(*second))),
        None => {
            patience.committed();
            None
        }
    };
    steps.iter().filter_map(step).collect()
}

#[test]
fn a_leader_cut_off_from_several_databases_stands_back_after_30_s() {
    let steps = [(0, Some(CutOff)), (30, Some(CutOff)), (31, Some(CutOff))];
    assert_eq!(run(Rivals::Some, &steps), [GoOn, GoOn, StandBack]);
}

#[test]
fn with_one_database_there_is_nobody_to_make_room_for() {
    assert_eq!(run(Rivals::None, &[(0, Some(CutOff)), (3600, Some(CutOff))]), [GoOn, GoOn]);
}

#[test]
fn hanging_transactions_end_the_leadership_with_any_number_of_databases() {
    for rivals in [Rivals::None, Rivals::Some] {
        assert_eq!(run(rivals, &[(0, Some(Behind)), (31, Some(Behind))]), [GoOn, Stuck]);
    }
}

#[test]
fn a_commit_or_nothing_to_do_starts_the_clock_anew() {
    let steps = [(0, Some(Behind)), (29, None), (31, Some(Behind)), (59, Some(Behind))];
    assert_eq!(run(Rivals::Some, &steps), [GoOn, GoOn, GoOn]);
    // An owner in a long back-off is no reason to call the next transaction late.
    let steps = [(0, Some(Behind)), (40, Some(Content)), (90, Some(Behind)), (91, Some(CutOff))];
    assert_eq!(run(Rivals::Some, &steps)[1..], [GoOn, GoOn, GoOn]);
}

/// A member that takes connections and never commits (no quorum) is no better than none.
#[test]
fn a_connection_alone_is_no_progress() {
    let steps = [(0, Some(CutOff)), (20, Some(Behind)), (25, Some(CutOff)), (31, Some(CutOff))];
    assert_eq!(run(Rivals::Some, &steps), [GoOn, GoOn, GoOn, StandBack]);
}
