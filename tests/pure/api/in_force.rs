//! The subnet that node agents go by.

use kube_ovn::api::{
    crd,
    parse::{accepted_subnet, parse_accepted_subnet},
};

use crate::support::objects::settings;

fn spec(cidr: &str) -> crd::SubnetSpec {
    crd::SubnetSpec { cidr_block: cidr.into(), ..Default::default() }
}

#[test]
fn nodes_go_by_the_spec_that_the_controller_accepted() {
    let mut raw = crd::Subnet::new("blue", spec("10.17.0.0/30"));
    let accepted = serde_json::to_string(&spec("10.17.0.0/24")).unwrap();
    raw.status = Some(crd::SubnetStatus { last_valid_spec: accepted, ..Default::default() });
    assert_eq!(accepted_subnet(&raw).unwrap().spec.cidr_block, "10.17.0.0/24");
}

/// One that stands in the way of another is valid by itself: a node must not translate addresses
/// for it, or send its pods to an egress gateway.
#[test]
fn nodes_leave_alone_what_was_never_accepted() {
    let mut raw = crd::Subnet::new("blue", spec("10.17.0.0/30"));
    let none = |raw: &crd::Subnet| {
        accepted_subnet(raw).is_none()
            && parse_accepted_subnet(raw, &settings()).is_err_and(|findings| findings.is_empty())
    };
    assert!(none(&raw), "the controller has not seen it");
    let condition = |kind: &str, status: &str| crd::Condition {
        kind: kind.into(),
        status: status.into(),
        ..Default::default()
    };
    let refused = vec![condition("Ready", "False"), condition("Validated", "False")];
    raw.status = Some(crd::SubnetStatus { conditions: refused, ..Default::default() });
    assert!(none(&raw), "refused");
    raw.status = Some(crd::SubnetStatus { last_valid_spec: "{".into(), ..Default::default() });
    assert!(none(&raw), "an unreadable record");
    // Accepted by upstream, or by a controller that left no record of a spec so long.
    let ready = vec![condition("Validated", "True"), condition("Ready", "True")];
    raw.status = Some(crd::SubnetStatus { conditions: ready, ..Default::default() });
    assert_eq!(accepted_subnet(&raw).unwrap().spec.cidr_block, "10.17.0.0/30");
    assert!(parse_accepted_subnet(&raw, &settings()).is_ok());
}
