//! Conditions from problems. Types and reasons are upstream's; unlike upstream's, an Error that is
//! over becomes False, and a Vpc and a SecurityGroup have them too: an Event is gone after an hour,
//! what it complained of is not. (IPs have none: that would be one more write for each pod.)

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::Judgement;
use crate::{
    api::{Kind, is_ovn_provider},
    store::Problem,
};

/// Kinds whose conditions are written from problems.
pub fn judgement(kind: Kind) -> Judgement {
    match kind {
        Kind::Subnet
        | Kind::IpPool
        | Kind::Vpc
        | Kind::SecurityGroup
        | Kind::AdminNetworkPolicy
        | Kind::BaselineAdminNetworkPolicy => Judgement::Conditions,
        _ => Judgement::None,
    }
}

/// Reason of Ready=True; upstream names the last step it took.
pub fn success_reason(kind: Kind, spec: &Value) -> &'static str {
    match kind {
        Kind::IpPool => return "UpdateIPAMSucceeded",
        Kind::Vpc => return "ReconcileVpcSuccess",
        Kind::SecurityGroup => return "ReconcileSecurityGroupSuccess",
        Kind::AdminNetworkPolicy | Kind::BaselineAdminNetworkPolicy => return "Enforced",
        _ => {}
    }
    let text = |field: &str| spec[field].as_str().unwrap_or_default();
    if !is_ovn_provider(text("provider")) {
        "SetNonOvnSubnetSuccess"
    } else if text("gatewayType") == "centralized" {
        "ReconcileCentralizedGatewaySuccess"
    } else if spec["private"] == true {
        "SetPrivateLogicalSwitchSuccess"
    } else {
        "ResetLogicalSwitchAclSuccess"
    }
}

/// Whether an error was ever reported on the object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum History {
    Clean,
    Failed,
}

fn history(error: Option<&Value>) -> History {
    match error {
        Some(condition) if condition["status"] != "Unknown" => History::Failed,
        _ => History::Clean,
    }
}

/// The Error condition of an object that is fine.
fn no_error(history: History, because: (&str, &str)) -> Verdict {
    match history {
        History::Failed => Verdict::new("Error", "False", because),
        History::Clean => Verdict::new("Error", "Unknown", ("Init", "Not Observed")),
    }
}

/// A condition without its times.
struct Verdict {
    kind: &'static str,
    status: &'static str,
    reason: String,
    message: String,
}

impl Verdict {
    fn new(kind: &'static str, status: &'static str, because: (&str, &str)) -> Self {
        let (reason, message) = (because.0.to_owned(), because.1.to_owned());
        Verdict { kind, status, reason, message }
    }
}

/// The list to store. Equals `old` when nothing but times would change; conditions of other types
/// stay.
pub fn conditions(
    kind: Kind,
    problems: &[Problem],
    success: &'static str,
    old: &Value,
    now: Timestamp,
) -> Value {
    let find = |name: &str| old.as_array().into_iter().flatten().find(|c| c["type"] == name);
    let verdicts = verdicts(kind, problems, success, history(find("Error")));
    let same = |v: &Verdict| {
        find(v.kind).is_some_and(|c| {
            c["status"] == v.status
                && c["reason"].as_str().unwrap_or_default() == v.reason
                && c["message"].as_str().unwrap_or_default() == v.message
        })
    };
    if verdicts.iter().all(same) {
        return old.clone();
    }
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let ours = |c: &&Value| verdicts.iter().any(|v| c["type"] == v.kind);
    let others = old.as_array().into_iter().flatten().filter(|c| !ours(c)).cloned();
    let written = verdicts.iter().map(|verdict| match find(verdict.kind) {
        Some(unchanged) if same(verdict) => unchanged.clone(),
        before => written(kind, verdict, before, &now),
    });
    Value::Array(written.chain(others).collect())
}

fn written(kind: Kind, verdict: &Verdict, before: Option<&Value>, now: &str) -> Value {
    let since = before.filter(|c| c["status"] == verdict.status);
    let since = since.and_then(|c| c["lastTransitionTime"].as_str()).unwrap_or(now);
    let mut condition = json!({
        "type": verdict.kind,
        "status": verdict.status,
        "reason": verdict.reason,
        "lastUpdateTime": now,
        "lastTransitionTime": since,
    });
    // Conditions of Kubernetes' own form always have a message, and one time.
    let standard = matches!(kind, Kind::AdminNetworkPolicy | Kind::BaselineAdminNetworkPolicy);
    if standard || !verdict.message.is_empty() {
        condition["message"] = json!(verdict.message);
    }
    if let (true, Some(fields)) = (standard, condition.as_object_mut()) {
        fields.remove("lastUpdateTime");
    }
    condition
}

fn verdicts(
    kind: Kind,
    problems: &[Problem],
    success: &'static str,
    history: History,
) -> Vec<Verdict> {
    // A wrong object first: what else is wrong follows from it.
    let worst = problems.iter().find(|p| p.reason == "ValidateLogicalSwitchFailed");
    let worst = worst.or_else(|| problems.first());
    let (ready, validated, error) = match worst {
        None => {
            let because = (success, "");
            (
                Verdict::new("Ready", "True", because),
                Verdict::new("Validated", "True", because),
                no_error(history, because),
            )
        }
        Some(problem) => {
            let messages = problems.iter().filter(|p| p.reason == problem.reason);
            let message = messages.map(|p| p.message.as_str()).collect::<Vec<_>>().join("; ");
            let because = (problem.reason, message.as_str());
            let validated = match problem.reason {
                "ValidateLogicalSwitchFailed" => Verdict::new("Validated", "False", because),
                reason => Verdict::new("Validated", "True", (reason, "")),
            };
            // No gateway chosen yet is a state, not an error (upstream's success path).
            let error = match problem.reason {
                "NoReadyGateway" => no_error(history, because),
                _ => Verdict::new("Error", "True", because),
            };
            (Verdict::new("Ready", "False", because), validated, error)
        }
    };
    match kind {
        Kind::Subnet => vec![validated, ready, error],
        Kind::AdminNetworkPolicy | Kind::BaselineAdminNetworkPolicy => vec![ready],
        _ => vec![ready, error],
    }
}
