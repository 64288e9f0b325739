use super::parse_subnet;
use crate::api::{Invalid, Settings, Subnet, crd};

/// The subnet as the controller accepted it last, for node agents. What was edited since has been
/// refused, is held back (`status.lastValidSpec` says something else until then), or will be
/// accepted in a moment: nodes and switches change together. `None`: nothing of it was ever in
/// force, for it may stand in the way of another subnet. Controllers without that record (an
/// upgrade begins with the nodes) said so by the condition Ready.
pub fn accepted_subnet(raw: &crd::Subnet) -> Option<crd::Subnet> {
    let status = raw.status.as_ref()?;
    if let Ok(spec) = serde_json::from_str(&status.last_valid_spec) {
        return Some(crd::Subnet { spec, ..raw.clone() });
    }
    let ready = status.conditions.iter().any(|c| c.kind == "Ready" && c.status == "True");
    ready.then(|| raw.clone())
}

/// The same, validated. A subnet that is not in force is refused without a finding: the controller
/// tells its user.
pub fn parse_accepted_subnet(
    raw: &crd::Subnet,
    settings: &Settings,
) -> Result<Subnet, Vec<Invalid>> {
    accepted_subnet(raw).map_or(Err(Vec::new()), |raw| parse_subnet(&raw, settings))
}
