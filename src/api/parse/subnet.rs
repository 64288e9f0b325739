use kube::ResourceExt;

use crate::api::{
    GatewayType, Invalid, PolicyRouting, Selector, Settings, Subnet, crd, selectors::parse_selector,
};

use super::{
    defaulted_subnet_spec,
    dhcp::{dhcp, router_advertisement},
    filled,
    findings::{Findings, reason},
    nat_policy::rule_ids,
    subnet_acls::subnet_acls,
    subnet_rules as rules, text, texts,
};

/// A Subnet with its defaults, or everything that is wrong with it.
pub fn parse_subnet(raw: &crd::Subnet, settings: &Settings) -> Result<Subnet, Vec<Invalid>> {
    let name = raw.name_any();
    let spec = defaulted_subnet_spec(raw, settings);
    let mut found = Findings::new(reason::SUBNET);
    rules::relations(&mut found, &name, &spec, settings);
    let allow_subnets = rules::allow_subnets(&mut found, &spec);
    let acls = subnet_acls(&mut found, &spec.acls);
    let namespace_selectors = selectors(&mut found, &spec);
    let gateway_nodes = rules::gateway_nodes(&mut found, &spec);
    rules::nat_rules(&mut found, &spec);
    let dhcp = dhcp(&mut found, &spec);
    let router_advertisement = router_advertisement(&mut found, &spec);
    let Some(cidrs) = rules::cidr_block(&mut found, &spec) else { return Err(found.into_list()) };
    let excludes = rules::excludes(&mut found, &spec, &cidrs);
    let egress = rules::egress_gateways(&mut found, &spec, &cidrs);
    rules::vips(&mut found, &spec, &cidrs);
    let Some(gateways) = rules::gateway(&mut found, &spec, &cidrs) else {
        return Err(found.into_list());
    };
    rules::u2o_ip(&mut found, &spec, &cidrs, &gateways);
    let subnet = Subnet {
        uid: text(raw.metadata.uid.as_ref()),
        created: raw.creation_timestamp().map_or(0, |t| t.0.as_second()),
        vpc: spec.vpc.as_str().into(),
        provider: spec.provider.as_str().into(),
        default: spec.default,
        cidrs,
        gateways,
        excludes,
        namespaces: texts(&spec.namespaces),
        namespace_selectors,
        gateway_type: gateway_type(&name, &spec, settings),
        gateway_nodes,
        enable_ecmp: spec.enable_ecmp,
        nat_outgoing: spec.nat_outgoing,
        nat_rules: rule_ids(&name, &spec),
        private: spec.private,
        allow_subnets,
        acls,
        allow_ew_traffic: spec.allow_ew_traffic,
        vlan: filled(&spec.vlan),
        logical_gateway: spec.logical_gateway,
        u2o_interconnection: spec.u2o_interconnection,
        enable_lb: spec.enable_lb,
        disable_gateway_check: spec.disable_gateway_check,
        mtu: small(spec.mtu).filter(|mtu| *mtu > 0),
        route_table: spec.route_table.as_str().into(),
        multicast_snoop: spec.enable_multicast_snoop,
        dhcp,
        router_advertisement,
        policy_routing: (!egress.is_empty()).then(|| PolicyRouting {
            gateways: egress,
            priority: small(spec.policy_routing_priority).unwrap_or(0),
            table: small(spec.policy_routing_table_id).unwrap_or(0),
        }),
        deleting: raw.metadata.deletion_timestamp.is_some(),
        vips: texts(&spec.vips),
        renumbering: None,
        name: name.into(),
    };
    found.or(subnet)
}

/// Only the default VPC has gateway nodes, and its join subnet none.
fn gateway_type(name: &str, spec: &crd::SubnetSpec, settings: &Settings) -> Option<GatewayType> {
    if spec.vpc != *settings.cluster_router || name == &*settings.node_switch {
        return None;
    }
    match spec.gateway_type.as_str() {
        "centralized" => Some(GatewayType::Centralized),
        _ => Some(GatewayType::Distributed),
    }
}

fn selectors(found: &mut Findings, spec: &crd::SubnetSpec) -> Vec<Selector> {
    let mut selectors = Vec::new();
    for (index, raw) in spec.namespace_selectors.iter().enumerate() {
        match parse_selector(raw) {
            Ok(selector) => selectors.push(selector),
            Err(error) => {
                let field = format!("spec.namespaceSelectors[{index}]");
                found.refuse(&field, "matchExpressions", error);
            }
        }
    }
    selectors
}

/// The API server keeps such numbers in range; older schemas did not.
fn small(number: i64) -> Option<u32> {
    u32::try_from(number).ok()
}
