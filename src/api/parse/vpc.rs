use kube::ResourceExt;

use crate::{
    api::{Invalid, PolicyAction, PolicyRoute, StaticRoute, Vpc, crd, names::label},
    net::{Cidr, DualStack, Family, parse_ip},
};

use super::{
    filled,
    findings::{Findings, reason},
    items, texts,
};

/// A Vpc, and what was wrong in it. A route that is not valid is left out alone: were the whole
/// Vpc absent, one typing error would cut off every subnet of it.
pub fn parse_vpc(raw: &crd::Vpc) -> (Vpc, Vec<Invalid>) {
    let mut found = Findings::new(reason::VPC);
    let spec = &raw.spec;
    let static_routes = spec.static_routes.iter().enumerate();
    let policy_routes = spec.policy_routes.iter().enumerate();
    let vpc = Vpc {
        name: raw.name_any().into(),
        namespaces: texts(&spec.namespaces),
        default_subnet: filled(&spec.default_subnet),
        static_routes: static_routes.filter_map(|(i, r)| static_route(&mut found, i, r)).collect(),
        policy_routes: policy_routes.filter_map(|(i, r)| policy_route(&mut found, i, r)).collect(),
        external: raw.labels().get(label::VPC_EXTERNAL).is_some_and(|v| v == "true"),
        invalid: Vec::new(),
        deleting: raw.metadata.deletion_timestamp.is_some(),
    };
    for (index, peering) in spec.vpc_peerings.iter().enumerate() {
        let field = format!("spec.vpcPeerings[{index}].localConnectIP");
        let value = &peering.local_connect_ip;
        found.take(&field, value, DualStack::parse_cidrs(value));
    }
    (vpc, found.into_list())
}

fn static_route(found: &mut Findings, index: usize, raw: &crd::StaticRoute) -> Option<StaticRoute> {
    let field = |end: &str| format!("spec.staticRoutes[{index}].{end}");
    let by_source = match raw.policy.as_str() {
        "" | "policyDst" => false,
        "policySrc" => true,
        other => {
            found.refuse(&field("policy"), other, "write policyDst or policySrc");
            return None;
        }
    };
    let cidr = raw.cidr.as_str();
    let parsed = match cidr.parse::<Cidr>() {
        Ok(prefix) => Ok(prefix.network()),
        Err(_) => parse_ip(cidr).map(Cidr::host).map_err(|_| "is no address and no CIDR"),
    };
    let prefix = found.take(&field("cidr"), cidr, parsed)?;
    let next_hop = raw.next_hop_ip.as_str();
    let next_hop = found.take(&field("nextHopIP"), next_hop, parse_ip(next_hop))?;
    if Family::of(next_hop) != prefix.family() {
        found.refuse(&field("nextHopIP"), next_hop, format!("is of another family than {prefix}"));
        return None;
    }
    Some(StaticRoute {
        by_source,
        prefix,
        next_hop,
        ecmp_symmetric_reply: raw.ecmp_mode == "ecmp_symmetric_reply",
        bfd_id: filled(&raw.bfd_id),
        table: raw.route_table.as_str().into(),
    })
}

fn policy_route(found: &mut Findings, index: usize, raw: &crd::PolicyRoute) -> Option<PolicyRoute> {
    let field = |end: &str| format!("spec.policyRoutes[{index}].{end}");
    let action = match raw.action.as_str() {
        "allow" => PolicyAction::Allow,
        "drop" => PolicyAction::Drop,
        "reroute" => PolicyAction::Reroute,
        other => {
            found.refuse(&field("action"), other, "write allow, drop or reroute");
            return None;
        }
    };
    let priority = i32::try_from(raw.priority).ok().filter(|p| (0..=32767).contains(p));
    let Some(priority) = priority else {
        found.refuse(&field("priority"), raw.priority, "OVN takes 0 to 32767");
        return None;
    };
    if raw.matching.trim().is_empty() {
        found.refuse(&field("match"), &raw.matching, "write an OVN match expression");
        return None;
    }
    let mut next_hops = Vec::new();
    // Other actions have none; upstream clears the field then.
    if action == PolicyAction::Reroute {
        for item in items(&raw.next_hop_ip) {
            next_hops.push(found.take(&field("nextHopIP"), item, parse_ip(item))?);
        }
        let families = next_hops.windows(2).all(|w| Family::of(w[0]) == Family::of(w[1]));
        if next_hops.is_empty() || !families {
            let remedy = "reroute needs addresses of one family, comma separated";
            found.refuse(&field("nextHopIP"), &raw.next_hop_ip, remedy);
            return None;
        }
    }
    Some(PolicyRoute { priority, matching: raw.matching.as_str().into(), action, next_hops })
}
