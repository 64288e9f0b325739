//! `status.lastValidSpec`: what an object said when it was last valid.
//!
//! An edit that is not valid leaves the last valid version in force, and a controller or node
//! agent that starts later must come to the same result, or the ports of running pods would go
//! with it. So the accepted spec is recorded in the status: `kubectl apply` and GitOps tools do
//! not look there, it survives every restart, and it is read only while the spec itself is not
//! valid. (An annotation would show up in diffs and be lost by `kubectl replace`; rows of the
//! databases cannot tell what was asked for.)

use serde_json::{Value, json};

use super::Wanted;
use crate::api::{Kind, Text};

pub const FIELD: &str = "lastValidSpec";

/// In bytes; an object with a longer spec is left without a record rather than made too big to be
/// stored (etcd takes 1.5 MB).
const LONGEST: usize = 256 * 1024;

/// Kinds with the field in their status.
pub fn is_recorded(kind: Kind) -> bool {
    matches!(kind, Kind::Vpc | Kind::Subnet | Kind::IpPool)
}

/// The record of an object whose `spec`, as JSON text, is valid.
pub fn desired_record(kind: Kind, key: &Text, spec: &str) -> Option<Wanted> {
    let fits = is_recorded(kind) && spec.len() <= LONGEST;
    fits.then(|| Wanted::Status { kind, key: key.clone(), status: json!({ FIELD: spec }) })
}

/// The recorded spec in a whole object.
pub fn recorded(object: &Value) -> Option<Value> {
    serde_json::from_str(object.get("status")?.get(FIELD)?.as_str()?).ok()
}
