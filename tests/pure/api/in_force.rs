//! The subnet that node agents go by.

use kube_ovn::api::{crd, parse::accepted_subnet};

#[test]
fn nodes_go_by_the_spec_that_the_controller_accepted() {
    let spec = |cidr: &str| crd::SubnetSpec { cidr_block: cidr.into(), ..Default::default() };
    let mut raw = crd::Subnet::new("blue", spec("10.17.0.0/30"));
    assert_eq!(accepted_subnet(&raw).spec.cidr_block, "10.17.0.0/30", "nothing accepted yet");
    let accepted = serde_json::to_string(&spec("10.17.0.0/24")).unwrap();
    raw.status = Some(crd::SubnetStatus { last_valid_spec: accepted, ..Default::default() });
    assert_eq!(accepted_subnet(&raw).spec.cidr_block, "10.17.0.0/24");
    raw.status = Some(crd::SubnetStatus { last_valid_spec: "{".into(), ..Default::default() });
    assert_eq!(accepted_subnet(&raw).spec.cidr_block, "10.17.0.0/30", "an unreadable record");
}
