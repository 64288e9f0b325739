//! Namespace annotations: which subnets and pools its pods use. For users and other tools; our
//! own allocation reads the objects.

use std::collections::BTreeMap;

use crate::{
    api::{Kind, Namespace, Text},
    store::{Output, View, Wanted},
};

use super::placement::{Choice, choose, namespace_pools, namespace_subnets};

pub fn desired(view: &View<'_>, name: &str) -> Output {
    let Some(namespace) = view.get::<Namespace>(name) else { return Output::default() };
    if namespace.deleting {
        return Output::default();
    }
    let subnets = namespace_subnets(view, namespace);
    // A custom VPC's default subnet comes first in the names but brings no range of its own.
    let Choice { members, .. } = choose(view, namespace);
    let pools = namespace_pools(view, name);
    let mut values: BTreeMap<Text, Option<Text>> = BTreeMap::new();
    let mut put = |key: &str, parts: Vec<String>, separator: &str| {
        let value = (!parts.is_empty()).then(|| parts.join(separator).into());
        values.insert(format!("ovn.kubernetes.io/{key}").into(), value);
    };
    put("logical_switch", subnets.iter().map(|s| s.name.to_string()).collect(), ",");
    put("cidr", members.iter().map(|s| s.cidrs.to_string()).collect(), ";");
    let excludes = |s: &&crate::api::Subnet| -> String {
        let texts: Vec<String> =
            s.excludes.iter().map(|r| r.to_string().replace('-', "..")).collect();
        texts.join(",")
    };
    put("exclude_ips", members.iter().map(excludes).collect(), ";");
    put("ip_pool", pools.iter().map(|p| p.to_string()).collect(), ",");
    let wanted = Wanted::Annotations { kind: Kind::Namespace, key: namespace.name.clone(), values };
    Output { wanted: vec![wanted], ..Output::default() }
}
