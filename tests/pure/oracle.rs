//! When the oracle is asked.

use std::time::{Duration, Instant};

use kube_ovn::controller::reconcile::oracle::{Applied, Oracle, pause};

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn the_first_run_waits_for_a_moment_of_rest_and_the_next_come_by_the_clock() {
    let begin = Instant::now();
    let mut oracle = Oracle::default();
    assert!(!oracle.is_due(begin + ms(3_600_000), Applied::Part), "nothing was ever applied");
    assert!(oracle.is_due(begin, Applied::All));
    oracle.note(begin, ms(2), 0);
    assert!(!oracle.is_due(begin + ms(9_999), Applied::All));
    assert!(oracle.is_due(begin + ms(10_000), Applied::Part), "a busy cluster is checked as well");
    oracle.note(begin, ms(2), 3);
    assert_eq!((oracle.runs, oracle.differences), (2, 3));
}

#[test]
fn a_quick_oracle_runs_often_and_a_slow_one_costs_a_thousandth_of_a_core() {
    assert_eq!(pause(ms(0)), ms(10_000));
    assert_eq!(pause(ms(100)), ms(10_000));
    assert_eq!(pause(ms(130)), ms(130_000));
    assert_eq!(pause(ms(5_000)), ms(600_000), "at least every ten minutes");
}
