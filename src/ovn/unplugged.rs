//! Annotations of networks that a running pod no longer asks for.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    api::{
        Kind, Pod, Text,
        names::{provider_key, suffix},
        parse::parse_pod_networks,
    },
    store::Wanted,
};

/// Takes away everything that was written for networks which have no address and are not wanted;
/// `given` are the providers that have addresses. The provider is the whole key before the domain,
/// whatever dots the pod's name has.
pub fn unplugged(pod: &Pod, given: &BTreeSet<&str>) -> Option<Wanted> {
    let networks = parse_pod_networks(pod).ok()?;
    let mark = provider_key("", suffix::ALLOCATED).replacen("ovn", "", 1);
    let written = pod.annotations.keys().filter_map(|key| key.strip_suffix(mark.as_str()));
    let mut values: BTreeMap<Text, Option<Text>> = BTreeMap::new();
    for provider in written.filter(|p| !given.contains(p) && !networks.wants(p)) {
        let keys = suffix::ALL.iter().map(|name| Text::from(provider_key(provider, name)));
        values.extend(keys.filter(|key| pod.annotations.contains_key(key)).map(|key| (key, None)));
    }
    let key = format!("{}/{}", pod.namespace, pod.name).into();
    (!values.is_empty()).then_some(Wanted::Annotations { kind: Kind::Pod, key, values })
}
