//! What is asked, what is known, what is answered.

use std::{collections::BTreeMap, fmt::Display};

use serde_json::Value;

use super::{nat, network, workload};
use crate::{
    api::Settings,
    net::{DualStack, parse_ip},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Other,
}

/// The parts of an AdmissionReview that decide.
#[derive(Debug, Clone)]
pub struct Request {
    pub operation: Operation,
    /// Plural of the kind, lower case.
    pub resource: String,
    pub name: String,
    pub namespace: String,
    /// Null for a deletion.
    pub object: Value,
    /// Null for a creation.
    pub old: Value,
}

impl Request {
    /// From the `request` of an AdmissionReview; `None` for what is none.
    pub fn parse(request: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Some(Request {
            operation: match request["operation"].as_str()? {
                "CREATE" => Operation::Create,
                "UPDATE" => Operation::Update,
                "DELETE" => Operation::Delete,
                _ => Operation::Other,
            },
            resource: request["resource"]["resource"].as_str()?.to_owned(),
            name: text(&request["name"]),
            namespace: text(&request["namespace"]),
            object: request["object"].clone(),
            old: request["oldObject"].clone(),
        })
    }

    /// The object as it is or was.
    pub fn subject(&self) -> &Value {
        if self.object.is_null() { &self.old } else { &self.object }
    }

    pub fn spec_changed(&self) -> bool {
        self.object["spec"] != self.old["spec"]
    }

    /// A ready object may only change when `status.redo` asks for it.
    pub fn is_frozen(&self) -> bool {
        let redo = |object: &Value| text(&object["status"]["redo"]).to_owned();
        self.old["status"]["ready"] == true && redo(&self.object) == redo(&self.old)
    }
}

/// Something that has to be read from the API server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// All objects of a kind (plural), with these labels unless empty.
    All(&'static str, String),
    /// One of a kind.
    One(&'static str, String),
    /// A ConfigMap of kube-system.
    Config(&'static str),
}

/// Answers so far. An object that does not exist is an empty list.
#[derive(Debug, Clone, Default)]
pub struct Facts(pub BTreeMap<Question, Vec<Value>>);

/// Why a request is not decided or not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    Need(Question),
    Refused { code: u16, message: String },
}

pub type Asked<T> = Result<T, Stop>;

impl Facts {
    fn ask(&self, question: Question) -> Asked<&[Value]> {
        match self.0.get(&question) {
            Some(answer) => Ok(answer),
            None => Err(Stop::Need(question)),
        }
    }

    pub fn all(&self, plural: &'static str, labels: &str) -> Asked<&[Value]> {
        self.ask(Question::All(plural, labels.to_owned()))
    }

    pub fn find(&self, plural: &'static str, name: &str) -> Asked<Option<&Value>> {
        Ok(self.ask(Question::One(plural, name.to_owned()))?.first())
    }

    /// One that must exist.
    pub fn one(&self, plural: &'static str, field: &str, name: &str) -> Asked<&Value> {
        if name.is_empty() {
            return bad(format!("{field}: must be set"));
        }
        match self.find(plural, name)? {
            Some(object) => Ok(object),
            None => bad(format!("{field} {name:?}: {plural}.kubeovn.io {name:?} not found")),
        }
    }

    pub fn config(&self, name: &'static str) -> Asked<Option<&Value>> {
        Ok(self.ask(Question::Config(name))?.first())
    }
}

pub fn bad<T>(message: impl Display) -> Asked<T> {
    Err(Stop::Refused { code: 400, message: message.to_string() })
}

pub fn denied<T>(message: impl Display) -> Asked<T> {
    Err(Stop::Refused { code: 403, message: message.to_string() })
}

pub fn conflict<T>(message: impl Display) -> Asked<T> {
    Err(Stop::Refused { code: 409, message: message.to_string() })
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Decides, or says what has to be known first.
pub fn review(request: &Request, facts: &Facts, settings: &Settings) -> Asked<()> {
    match request.resource.as_str() {
        "pods" | "deployments" | "statefulsets" | "daemonsets" | "jobs" | "cronjobs" => {
            workload::review(request, facts, settings)
        }
        "subnets" => network::subnet(request, facts, settings),
        "vpcs" => network::vpc(request, facts),
        "ips" => network::ip(request, facts),
        "vips" => network::vip(request, facts),
        "vpc-nat-gateways" => nat::gateway(request, facts),
        "iptables-eips" => nat::iptables_eip(request, facts),
        "iptables-dnat-rules" => nat::iptables_rule(request, facts, nat::Rule::Dnat),
        "iptables-snat-rules" => nat::iptables_rule(request, facts, nat::Rule::Snat),
        "iptables-fip-rules" => nat::iptables_rule(request, facts, nat::Rule::Fip),
        "ovn-eips" => nat::ovn_eip(request, facts),
        "ovn-dnat-rules" => nat::ovn_rule(request, facts, nat::Rule::Dnat),
        "ovn-snat-rules" => nat::ovn_rule(request, facts, nat::Rule::Snat),
        "ovn-fips" => nat::ovn_rule(request, facts, nat::Rule::Fip),
        _ => Ok(()),
    }
}

/// Two address fields of `spec` against the CIDR of a subnet; empty ones are fine.
pub fn check_addresses(object: &Value, fields: [&str; 2], subnet: &Value) -> Asked<()> {
    let name = text(&subnet["metadata"]["name"]);
    let block = text(&subnet["spec"]["cidrBlock"]);
    let cidrs = DualStack::parse_cidrs(block).unwrap_or_default();
    for (field, want_v4) in fields.into_iter().zip([true, false]) {
        let value = text(&object["spec"][field]);
        if value.is_empty() {
            continue;
        }
        if value.chars().any(|c| c.is_ascii_uppercase()) {
            return bad(format!("spec.{field} {value:?}: write IPv6 addresses in lower case"));
        }
        match parse_ip(value) {
            Ok(ip) if ip.is_ipv4() != want_v4 => {
                return bad(format!("spec.{field} {value:?}: is of the other family"));
            }
            Ok(ip) if !cidrs.contains(ip) => {
                let remedy = format!("lies outside {block} of subnet {name:?}");
                return bad(format!("spec.{field} {value:?}: {remedy}; choose an address in it"));
            }
            Ok(_) => {}
            Err(error) => return bad(format!("spec.{field} {value:?}: {error}")),
        }
    }
    Ok(())
}
