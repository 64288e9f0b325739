//! Rules between objects. An object that breaks one gets nothing; the others work on.

use crate::{
    api::{Index, Kind, Subnet, Vpc, parse::precedes},
    store::{Problem, View},
};

/// Why a subnet cannot be built although its own fields are right: its VPC is missing, or an
/// earlier subnet of the VPC (and vlan) overlaps it. Upstream wrote a condition and built both.
pub fn conflict(view: &View<'_>, subnet: &Subnet) -> Option<Problem> {
    let problem = |message: String| {
        Some(Problem {
            kind: Kind::Subnet,
            key: subnet.name.clone(),
            reason: "ValidateLogicalSwitchFailed",
            message,
        })
    };
    if view.get::<Vpc>(&subnet.vpc).is_none() {
        return problem(format!(
            "spec.vpc {:?} does not exist; create the Vpc or correct the name",
            &*subnet.vpc
        ));
    }
    for other in view.list::<Subnet>(Index::SubnetsByVpc, &subnet.vpc) {
        let rival = other.name != subnet.name && other.vlan == subnet.vlan && other.is_ovn();
        if rival && precedes(other, subnet) && other.cidrs.overlaps(&subnet.cidrs) {
            return problem(format!(
                "spec.cidrBlock {} overlaps {} of subnet {:?} in the same VPC; choose a free range",
                subnet.cidrs, other.cidrs, &*other.name
            ));
        }
    }
    None
}

/// The subnet, if it exists and nothing stands against it.
pub fn valid_subnet<'a>(view: &View<'a>, name: &str) -> Option<&'a Subnet> {
    view.get::<Subnet>(name).filter(|s| conflict(view, s).is_none())
}
