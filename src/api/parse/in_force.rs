use crate::api::crd;

/// The subnet as the controller accepted it last, for node agents. What was edited since has been
/// refused, is held back (`status.lastValidSpec` says something else until then), or will be
/// accepted in a moment: nodes and switches change together.
pub fn accepted_subnet(raw: &crd::Subnet) -> crd::Subnet {
    let status = raw.status.as_ref();
    let record = status.filter(|s| !s.last_valid_spec.is_empty()).map(|s| &s.last_valid_spec);
    match record.and_then(|text| serde_json::from_str(text).ok()) {
        Some(spec) => crd::Subnet { spec, ..raw.clone() },
        None => raw.clone(),
    }
}
