//! The fuse: a plan that would delete much of the network without a Kubernetes delete behind it,
//! or an edit of the very object that the rows are for, waits for a human. An edit must pass: rules
//! that a policy no longer has would go on to be in force.

use std::collections::BTreeSet;

use crate::{
    ovsdb::{
        row::RowKey,
        schema::{Table, nb},
    },
    store::Owner,
};

use super::{Cause, Desired, Pending, Touch};

/// Deletions that nobody asked for are let through up to this many rows...
const FLOOR: usize = 50;
/// ...or this share of the rows that are ours.
const SHARE: usize = 10;

/// Rows that hold rows of other owners.
const CONTAINERS: [&Table; 2] = [&nb::LOGICAL_SWITCH, &nb::LOGICAL_ROUTER];

/// What was found in the pending touches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Owners whose touches delete rows without an explicit Kubernetes delete or edit.
    pub suspects: BTreeSet<Owner>,
    /// Rows that they would delete; a policy is one.
    pub rows: usize,
    /// Limit in force.
    pub limit: usize,
}

impl Verdict {
    pub fn blown(&self) -> bool {
        self.rows > self.limit
    }
}

/// Counts unexplained deletions among `pending`. `exists` says whether the database holds a row
/// of that identity, `owned` how many rows of ours it holds.
pub fn inspect(
    pending: &Pending,
    desired: &Desired,
    owned: usize,
    exists: impl Fn(&Touch) -> bool,
) -> Verdict {
    let mut verdict = Verdict { limit: FLOOR.max(owned / SHARE), ..Verdict::default() };
    let mut rows: Vec<&RowKey> = Vec::new();
    for (owner, cause, touches) in pending.iter() {
        if cause == Cause::Deleted {
            continue;
        }
        let doomed: Vec<&Touch> = touches
            .iter()
            .filter(|t| matches!(t, Touch::Row(key) if desired.row(key).is_none()) && exists(t))
            .collect();
        // With a switch or router go the rows of all that live on it.
        let shared = |touch: &&Touch| CONTAINERS.contains(&touch.row().table);
        if cause == Cause::Edited && !doomed.iter().any(shared) {
            continue;
        }
        if !doomed.is_empty() {
            rows.extend(doomed.iter().map(|touch| touch.row()));
            verdict.suspects.insert(owner.clone());
        }
    }
    verdict.rows = count(&rows);
    verdict
}

/// ACLs and address sets go with the port group of the policy that has made them all: it is one
/// thing, and a dozen policies that were deleted while no controller ran are no accident.
fn count(rows: &[&RowKey]) -> usize {
    let of = |key: &RowKey, tables: &[&Table]| tables.contains(&key.table);
    let groups = rows.iter().filter(|key| of(key, &[&nb::PORT_GROUP]));
    let groups: BTreeSet<&str> = groups.map(|key| key.maker()).collect();
    let goes_along =
        |key: &RowKey| of(key, &[&nb::ACL, &nb::ADDRESS_SET]) && groups.contains(key.maker());
    rows.iter().filter(|key| !goes_along(key)).count()
}
