//! What the kubelet gives the plugin, and what the plugin gives the agent: no panic.

#![no_main]

use kube_ovn::cni::{config, wire};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = config::peek_version(input);
    if let Ok(conf) = config::parse_conf(input) {
        let text = String::from_utf8_lossy(input).into_owned();
        let _ = config::parse_environment(|_| Some(text.clone())).map(|e| conf.request(&e));
    }
    for request in [wire::parse_add(input), wire::parse_del(input)].into_iter().flatten() {
        let _ = request.port_name();
    }
    let _ = wire::parse_gc(input);
});
