//! OpenFlow rules of the bridges over restarts: how many there are while all is well, and when a
//! new ovs-vswitchd has them again. Pure.
//!
//! Two daemons hold the rules, and the remedies for their ends exclude each other:
//! * ovn-controller ends alone: the rules in the switch are good, so its successor must leave them
//!   until it has computed its own ([`WAIT_KEY`]).
//! * ovs-vswitchd ends, alone or with the container: the switch is empty, so ovn-controller must
//!   write at once, and with the kernel datapath the old flows forward until the rules are back.
//!
//! So the key is set only while the switch holds rules, and removed before each start of vswitchd:
//! otherwise the start of a node would take those seconds longer, and so would each restart.

use std::collections::BTreeMap;

/// `external_ids` of Open_vSwitch: the rules of all bridges while all was well.
pub const RULES_KEY: &str = "kube-ovn-rules";
/// `external_ids` of Open_vSwitch, see ovn-controller(8): for how long (ms) a new ovn-controller
/// leaves the rules that it found. OVN 25.09 and later need no such time and ignore it.
pub const WAIT_KEY: &str = "ovn-ofctrl-wait-before-clear";

/// An empty bridge has a handful of rules of its own.
const EMPTY: u64 = 50;
/// Readings (one per second) after which a number that stands still counts as final: what is
/// missing is gone, for instance pods that were removed meanwhile.
const STILL: u32 = 10;

/// `handlers:2 ports:5 revalidators:1 rules:1234 udpif keys:7`
pub fn rule_count(memory: &str) -> Option<u64> {
    memory.split_whitespace().find_map(|word| word.strip_prefix("rules:")?.parse().ok())
}

/// The number of rules before the restart.
pub fn recorded(external_ids: &BTreeMap<String, String>) -> Option<u64> {
    external_ids.get(RULES_KEY)?.parse().ok()
}

/// Follows the rules as they come back.
#[derive(Debug)]
pub struct Restore {
    recorded: Option<u64>,
    last: Option<u64>,
    still: u32,
}

impl Restore {
    pub fn new(recorded: Option<u64>) -> Self {
        Restore { recorded, last: None, still: 0 }
    }

    /// `true` when the rules are back. ovn-controller computes the rules of a large node for
    /// seconds and writes them in several goes, so a short pause says nothing.
    pub fn is_over(&mut self, rules: Option<u64>) -> bool {
        let Some(rules) = rules.filter(|rules| *rules > EMPTY) else { return false };
        self.still = if self.last == Some(rules) { self.still + 1 } else { 0 };
        self.last = Some(rules);
        let nearly = self.recorded.is_some_and(|recorded| rules * 10 >= recorded * 9);
        nearly || self.still >= STILL
    }
}

/// Finds the number that is worth a record. A new vswitchd has no record of its own yet.
#[derive(Debug, Default)]
pub struct Steady {
    recorded: Option<u64>,
    last: Option<u64>,
}

impl Steady {
    /// The number to record after this reading: one that was the same twice and is new, or off by
    /// more than a twentieth. A database write per pod would be noise.
    pub fn take(&mut self, rules: Option<u64>) -> Option<u64> {
        let before = std::mem::replace(&mut self.last, rules);
        let rules = rules.filter(|rules| *rules > EMPTY && before == Some(*rules))?;
        let near = |recorded: u64| rules.abs_diff(recorded) * 20 <= recorded;
        if self.recorded.is_some_and(near) {
            return None;
        }
        self.recorded = Some(rules);
        Some(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_memory_show() {
        assert_eq!(rule_count("handlers:2 ports:5 rules:1234 udpif keys:7"), Some(1234));
        assert_eq!(rule_count("nothing"), None);
    }

    #[test]
    fn half_of_the_rules_is_not_the_end() {
        let mut restore = Restore::new(Some(1000));
        for reading in [None, Some(5), Some(500), Some(500), Some(500), Some(899)] {
            assert!(!restore.is_over(reading), "{reading:?}");
        }
        assert!(restore.is_over(Some(900)));
    }

    #[test]
    fn rules_that_never_come_back_are_not_waited_for() {
        for recorded in [Some(1000), None] {
            let mut restore = Restore::new(recorded);
            let over = (0..60).position(|_| restore.is_over(Some(700)));
            assert_eq!(over, Some(STILL as usize), "{recorded:?}");
        }
        // A switch that ovn-controller has not touched yet is not full.
        let mut restore = Restore::new(None);
        assert!((0..60).all(|_| !restore.is_over(Some(5))));
    }

    #[test]
    fn a_record_is_a_steady_number_that_changed_notably() {
        let mut steady = Steady::default();
        assert_eq!(steady.take(Some(400)), None);
        assert_eq!(steady.take(Some(1000)), None);
        assert_eq!(steady.take(Some(1000)), Some(1000));
        assert_eq!(steady.take(Some(1000)), None);
        assert_eq!((steady.take(Some(1050)), steady.take(Some(1050))), (None, None));
        assert_eq!((steady.take(Some(1051)), steady.take(Some(1051))), (None, Some(1051)));
        assert_eq!(
            (steady.take(None), steady.take(Some(20)), steady.take(Some(20))),
            (None, None, None)
        );
        assert_eq!((steady.take(Some(600)), steady.take(Some(600))), (None, Some(600)));
    }
}
