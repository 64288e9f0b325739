//! Objects as users write them, with their annotations: no panic, and defaults that settle.

#![no_main]

#[allow(dead_code)]
#[path = "../../support/objects.rs"]
mod objects;

use std::sync::LazyLock;

use k8s_openapi::api::core::v1 as core;
use kube_ovn::api::{Settings, crd, parse};
use libfuzzer_sys::fuzz_target;

static SETTINGS: LazyLock<Settings> = LazyLock::new(objects::settings);

fuzz_target!(|input: &[u8]| {
    if let Ok(raw) = serde_json::from_slice::<crd::Subnet>(input) {
        let once = parse::defaulted_subnet_spec(&raw, &SETTINGS);
        let twice = parse::defaulted_subnet_spec(&crd::Subnet::new("s", once.clone()), &SETTINGS);
        assert_eq!(once, twice);
        let _ = parse::parse_subnet(&raw, &SETTINGS);
    }
    if let Ok(raw) = serde_json::from_slice::<crd::Vpc>(input) {
        let _ = parse::parse_vpc(&raw);
    }
    if let Ok(raw) = serde_json::from_slice::<crd::Ip>(input) {
        let _ = parse::parse_ip(&raw);
    }
    if let Ok(raw) = serde_json::from_slice::<crd::IpPool>(input) {
        let _ = parse::parse_ippool(&raw);
    }
    if let Ok(raw) = serde_json::from_slice::<crd::SecurityGroup>(input) {
        let _ = parse::parse_security_group(&raw);
    }
    if let Ok(raw) = serde_json::from_slice::<core::Pod>(input) {
        let _ = parse::parse_pod(&raw);
    }
    if let Ok(raw) = serde_json::from_slice::<core::Node>(input) {
        let _ = parse::parse_node(&raw);
    }
    if let Ok(raw) = serde_json::from_slice::<core::Service>(input) {
        let _ = parse::parse_service(&raw);
    }
    let text = String::from_utf8_lossy(input);
    let _ = (parse::fixed_addresses(&text), parse::parse_pool_wish(&text));
});
