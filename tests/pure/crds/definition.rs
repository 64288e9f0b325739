//! Shape and rules -> CustomResourceDefinition.

use std::error::Error;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use kube_ovn::api::crd::{
    self,
    shape::{Rule, Shape, Wire},
};
use serde_json::{Map, Value, json};

/// A kind: its definition and the shapes it was made of.
pub struct Kind {
    pub definition: CustomResourceDefinition,
    pub spec: Shape,
    pub status: Option<Shape>,
}

macro_rules! kind {
    ($kind:ident, $spec:ident) => {
        make(crd::$kind::crd(), stringify!($kind), crd::$spec::shape(), None)
    };
    ($kind:ident, $spec:ident, $status:ident) => {
        make(crd::$kind::crd(), stringify!($kind), crd::$spec::shape(), Some(crd::$status::shape()))
    };
}

pub fn kinds() -> Result<Vec<Kind>, Box<dyn Error>> {
    Ok(vec![
        kind!(Vpc, VpcSpec, VpcStatus)?,
        kind!(Subnet, SubnetSpec, SubnetStatus)?,
        kind!(Ip, IpSpec)?,
        kind!(IpPool, IpPoolSpec, IpPoolStatus)?,
        kind!(Vip, VipSpec, VipStatus)?,
        kind!(Vlan, VlanSpec, VlanStatus)?,
        kind!(ProviderNetwork, ProviderNetworkSpec, ProviderNetworkStatus)?,
        kind!(SecurityGroup, SecurityGroupSpec, SecurityGroupStatus)?,
        kind!(VpcDns, VpcDnsSpec, VpcDnsStatus)?,
        kind!(SwitchLbRule, SwitchLbRuleSpec, SwitchLbRuleStatus)?,
        kind!(VpcNatGateway, VpcNatGatewaySpec, VpcNatGatewayStatus)?,
        kind!(VpcEgressGateway, VpcEgressGatewaySpec, VpcEgressGatewayStatus)?,
        kind!(IptablesEip, IptablesEipSpec, IptablesEipStatus)?,
        kind!(IptablesFipRule, IptablesFipRuleSpec, IptablesFipRuleStatus)?,
        kind!(IptablesDnatRule, IptablesDnatRuleSpec, IptablesDnatRuleStatus)?,
        kind!(IptablesSnatRule, IptablesSnatRuleSpec, IptablesSnatRuleStatus)?,
        kind!(OvnEip, OvnEipSpec, OvnEipStatus)?,
        kind!(OvnFip, OvnFipSpec, OvnFipStatus)?,
        kind!(OvnSnatRule, OvnSnatRuleSpec, OvnSnatRuleStatus)?,
        kind!(OvnDnatRule, OvnDnatRuleSpec, OvnDnatRuleStatus)?,
        kind!(QosPolicy, QosPolicySpec, QosPolicyStatus)?,
    ])
}

fn make(
    mut definition: CustomResourceDefinition,
    kind: &str,
    spec: Shape,
    status: Option<Shape>,
) -> Result<Kind, Box<dyn Error>> {
    let mut properties = Map::new();
    properties.insert("apiVersion".into(), json!({"type": "string"}));
    properties.insert("kind".into(), json!({"type": "string"}));
    properties.insert("metadata".into(), json!({"type": "object"}));
    // Subnet names become label keys of IP objects and OVN names, ProviderNetwork names become
    // bridge names of at most 15 characters, br-<name>.
    let name = match kind {
        "Subnet" => Some(json!({"type": "string", "pattern": "^[^0-9]"})),
        "ProviderNetwork" => {
            Some(json!({"type": "string", "maxLength": 12, "not": {"enum": ["int"]}}))
        }
        _ => None,
    };
    if let Some(name) = name {
        properties["metadata"]["properties"] = json!({ "name": name });
    }
    let mut spec_schema = schema(&spec)?;
    spec_schema["description"] = json!("What is wanted.");
    if kind == "VpcEgressGateway" {
        apply(&mut spec_schema, crd::VPC_EGRESS_GATEWAY_RULES)?;
    }
    properties.insert("spec".into(), spec_schema);
    if let Some(status) = &status {
        let mut status_schema = schema(status)?;
        status_schema["description"] = json!("What is there.");
        properties.insert("status".into(), status_schema);
    }
    let version = &mut definition.spec.versions[0];
    let described = json!({
        "type": "object",
        "description": description(kind),
        "properties": properties,
    });
    if let Some(validation) = &mut version.schema {
        validation.open_api_v3_schema = Some(serde_json::from_value(described)?);
    }
    // Upstream's Vip has a status without the subresource: a write of the status is a write of
    // the object and raises metadata.generation.
    if kind == "Vip" {
        version.subresources = None;
    }
    Ok(Kind { definition, spec, status })
}

fn description(kind: &str) -> &'static str {
    match kind {
        "Vpc" => "An isolated network: a logical router and the subnets attached to it.",
        "Subnet" => "A range of addresses for pods, and the switch that joins them.",
        "Ip" => "An address that is given to a port, or reserved for one.",
        "IpPool" => "Addresses of a subnet set aside for namespaces or pods that name the pool.",
        "Vip" => "An address of a subnet that no single pod owns.",
        "Vlan" => "A VLAN of a physical network, for underlay subnets.",
        "ProviderNetwork" => "A physical network and the interface that leads to it on each node.",
        "SecurityGroup" => "Rules for the traffic of the ports that name the group.",
        "VpcDns" => "A DNS server inside a VPC. A VPC has one that is active.",
        "SwitchLbRule" => "A load balancer address inside a VPC.",
        "VpcNatGateway" => "A pod that joins a VPC to an external network with iptables.",
        "VpcEgressGateway" => "Pods that carry the outgoing traffic of a VPC.",
        "IptablesEip" => "An external address of a VpcNatGateway.",
        "IptablesFipRule" => "An IptablesEIP for one inner address, both ways.",
        "IptablesDnatRule" => "A port of an IptablesEIP that leads to an inner address and port.",
        "IptablesSnatRule" => "The IptablesEIP that inner addresses use to reach the outside.",
        "OvnEip" => "An external address of a VPC's logical router.",
        "OvnFip" => "An OvnEip for one inner address, both ways.",
        "OvnSnatRule" => "The OvnEip that inner addresses use to reach the outside.",
        "OvnDnatRule" => "A port of an OvnEip that leads to an inner address and port.",
        "QosPolicy" => "Bandwidth limits for elastic addresses or NAT gateways.",
        _ => "",
    }
}

fn schema(shape: &Shape) -> Result<Value, Box<dyn Error>> {
    Ok(match shape {
        Shape::String => json!({"type": "string"}),
        Shape::Boolean => json!({"type": "boolean"}),
        Shape::Integer => json!({"type": "integer"}),
        Shape::Number => json!({"type": "number"}),
        Shape::Map => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        Shape::Array(item) => json!({"type": "array", "items": schema(item)?}),
        Shape::Object(list) => {
            let mut properties = Map::new();
            let mut required = Vec::new();
            for p in list {
                let mut below = schema(&p.shape)?;
                below["description"] = json!(p.doc);
                if apply(&mut below, p.rules)? == Presence::Required {
                    required.push(json!(p.name));
                }
                properties.insert(p.name.to_owned(), below);
            }
            let mut object = json!({"type": "object", "properties": properties});
            if !required.is_empty() {
                object["required"] = required.into();
            }
            object
        }
    })
}

#[derive(PartialEq)]
enum Presence {
    Optional,
    Required,
}

fn apply(schema: &mut Value, rules: &[Rule]) -> Result<Presence, Box<dyn Error>> {
    let mut presence = Presence::Optional;
    for rule in rules {
        match rule {
            Rule::Required => presence = Presence::Required,
            Rule::Set => schema["x-kubernetes-list-type"] = json!("set"),
            Rule::MapKeys(keys) => {
                schema["x-kubernetes-list-type"] = json!("map");
                schema["x-kubernetes-list-map-keys"] = json!(keys);
            }
            Rule::Cel(rule, message) => {
                push(schema, "x-kubernetes-validations", json!({"rule": rule, "message": message}));
            }
            Rule::CelAt(rule, message, field) => {
                let check = json!({"rule": rule, "message": message, "fieldPath": field});
                push(schema, "x-kubernetes-validations", check);
            }
            Rule::AnyOf(of) => schema["anyOf"] = choices(of)?,
            Rule::OneOf(of) => schema["oneOf"] = choices(of)?,
            Rule::Items(rules) => {
                apply(&mut schema["items"], rules)?;
            }
            Rule::At(path, rules) => at(schema, path, rules)?,
            value => {
                let (word, limit) = check(value)?;
                schema[word] = limit;
            }
        }
    }
    Ok(presence)
}

fn check(rule: &Rule) -> Result<(&'static str, Value), Box<dyn Error>> {
    Ok(match rule {
        Rule::Min(n) => ("minimum", json!(n)),
        Rule::Max(n) => ("maximum", json!(n)),
        Rule::MinLength(n) => ("minLength", json!(n)),
        Rule::MaxLength(n) => ("maxLength", json!(n)),
        Rule::MinItems(n) => ("minItems", json!(n)),
        Rule::Pattern(p) => ("pattern", json!(p)),
        Rule::Format(f) => ("format", json!(f)),
        Rule::Enum(values) => ("enum", json!(values)),
        Rule::Not(values) => ("not", json!({"enum": serde_json::from_str::<Value>(values)?})),
        Rule::Default(value) => ("default", serde_json::from_str(value)?),
        other => return Err(format!("{other:?} is no value check").into()),
    })
}

fn choices(rules: &[Rule]) -> Result<Value, Box<dyn Error>> {
    rules
        .iter()
        .map(|r| check(r).map(|(word, limit)| json!({word: limit})))
        .collect::<Result<Vec<Value>, _>>()
        .map(Value::from)
}

fn push(schema: &mut Value, word: &str, value: Value) {
    match schema[word].as_array_mut() {
        Some(list) => list.push(value),
        None => schema[word] = json!([value]),
    }
}

/// Applies rules to a field further down: `a.b[].c`, or `[].c` from a list.
fn at(schema: &mut Value, path: &str, rules: &[Rule]) -> Result<(), Box<dyn Error>> {
    let (head, rest) = match path.split_once('.') {
        Some((head, rest)) => (head, Some(rest)),
        None => (path, None),
    };
    let name = head.trim_end_matches("[]");
    let field = if name.is_empty() { &mut *schema } else { &mut schema["properties"][name] };
    if !field.is_object() {
        return Err(format!("no field {path}").into());
    }
    match rest {
        Some(rest) if head.ends_with("[]") => at(&mut field["items"], rest, rules),
        Some(rest) => at(field, rest, rules),
        None => {
            if apply(field, rules)? == Presence::Required {
                push(schema, "required", json!(name));
            }
            Ok(())
        }
    }
}
