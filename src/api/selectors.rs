//! Label selectors of Kubernetes -> [`Selector`].

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::{Operator, Requirement, Selector};

/// Why a selector is refused; names the requirement and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error(
        "operator {operator:?} of key {key:?} is unknown; write In, NotIn, Exists or DoesNotExist"
    )]
    Operator { key: String, operator: String },
    #[error("operator {operator} of key {key:?} needs values; add at least one")]
    NoValues { key: String, operator: String },
    #[error("operator {operator} of key {key:?} takes no values; remove them")]
    Values { key: String, operator: String },
    #[error("a requirement has no key; name a label")]
    NoKey,
}

/// An empty selector selects everything, as Kubernetes has it.
pub fn parse_selector(selector: &LabelSelector) -> Result<Selector, SelectorError> {
    let labels = selector.match_labels.iter().flatten();
    Ok(Selector {
        labels: labels.map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect(),
        expressions: selector
            .match_expressions
            .iter()
            .flatten()
            .map(parse_requirement)
            .collect::<Result<_, _>>()?,
    })
}

fn parse_requirement(raw: &LabelSelectorRequirement) -> Result<Requirement, SelectorError> {
    let (key, operator) = (raw.key.clone(), raw.operator.clone());
    if key.is_empty() {
        return Err(SelectorError::NoKey);
    }
    let values = raw.values.as_deref().unwrap_or_default();
    let parsed = match operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        _ => return Err(SelectorError::Operator { key, operator }),
    };
    match parsed {
        Operator::In | Operator::NotIn if values.is_empty() => {
            Err(SelectorError::NoValues { key, operator })
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            Err(SelectorError::Values { key, operator })
        }
        _ => Ok(Requirement {
            key: key.into(),
            operator: parsed,
            values: values.iter().map(|v| v.as_str().into()).collect(),
        }),
    }
}
