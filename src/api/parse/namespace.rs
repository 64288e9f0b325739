use k8s_openapi::api::core::v1 as core;
use kube::ResourceExt;

use crate::api::Namespace;

use super::{annotations::ours, map};

pub fn parse_namespace(raw: &core::Namespace) -> Namespace {
    Namespace {
        name: raw.name_any().into(),
        labels: map(raw.metadata.labels.as_ref()),
        annotations: ours(raw.metadata.annotations.as_ref()),
        deleting: raw.metadata.deletion_timestamp.is_some(),
    }
}
