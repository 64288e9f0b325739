//! Model of ipsets, their `ipset save` form and the difference as an `ipset restore` batch.

use std::collections::BTreeSet;

use crate::{
    api::Text,
    net::{Cidr, Family},
};

/// Type of an ipset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetKind {
    HashNet,
    HashIp,
}

/// One ipset of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpSet {
    pub kind: SetKind,
    pub family: Family,
    pub members: BTreeSet<Cidr>,
}

/// Names of all sets in an `ipset save` listing (feed those of kube-proxy to the view).
pub fn parse_set_names(listing: &str) -> BTreeSet<Text> {
    listing
        .lines()
        .filter_map(|l| l.strip_prefix("create ")?.split(' ').next())
        .map(Text::from)
        .collect()
}
