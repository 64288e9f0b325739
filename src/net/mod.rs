//! Value types of networking: addresses, families, ranges, OVN match expressions.
//!
//! Nothing here knows Kubernetes or OVSDB. Families are types: a dual-stack value is a
//! [`DualStack`], never a comma string; the comma form of the manual (`v4,v6`) is parsed and
//! printed at the edge only.

mod address;
mod dual;
mod link;
mod mac;
mod matching;
mod range;
mod subtract;

pub use address::{Cidr, Family, NetError, ip_from_number, ip_number, parse_ip};
pub use dual::DualStack;
pub use link::{
    AddressState, Dad, Link, LinkAddress, LinkChange, LinkState, MAIN_TABLE, POLICY_PROTOCOL,
    Place, PolicyRule, Route, RouteProtocol, Scope, VethPair,
};
pub use mac::Mac;
pub use matching::{Expression, address_set_name, field, port_group_name};
pub use range::{IpRange, RangeSet};
