//! Text model of iptables tables.

/// Wanted tables of one family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tables {}
