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
use crate::api::{Kind, Settings, Subnet, Text, crd, parse::parse_subnet};

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

/// The version of a subnet that its status records, if its range or gateways are not those of the
/// spec: a change that cannot take effect yet, and the record is in force.
pub fn other_range(new: &Subnet, status: &Value, settings: &Settings) -> Option<Subnet> {
    let spec = serde_json::from_str(status.get(FIELD)?.as_str()?).ok()?;
    let recorded = parse_subnet(&crd::Subnet::new(&new.name, spec), settings).ok()?;
    if recorded.cidrs == new.cidrs && recorded.gateways == new.gateways {
        return None;
    }
    let (uid, created, deleting) = (new.uid.clone(), new.created, new.deleting);
    let renumbering = Some(new.as_renumbering());
    Some(Subnet { uid, created, deleting, renumbering, ..recorded })
}

/// The recorded spec in a whole object.
pub fn recorded(object: &Value) -> Option<Value> {
    serde_json::from_str(object.get("status")?.get(FIELD)?.as_str()?).ok()
}
