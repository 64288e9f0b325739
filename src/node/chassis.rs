//! The node annotation `ovn.kubernetes.io/chassis`: tells the controller which chassis of OVN this
//! node is.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1 as core;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{ovs_rows::system_id, state::Cluster, vswitch::Vswitch};
use crate::api::{Node, Text, names::annotation};

const RETRY: Duration = Duration::from_secs(2);

/// Keeps the annotation equal to `external_ids:system-id`, for ever; sleeps while it is.
pub async fn annotate(client: Client, node: Text, cluster: Arc<Cluster>, vswitch: Arc<Vswitch>) {
    let nodes: Api<core::Node> = Api::all(client);
    let (mut objects, mut rows) = (cluster.changes(), vswitch.changes());
    loop {
        objects.mark_unchanged();
        rows.mark_unchanged();
        let wanted = vswitch.read(system_id);
        let seen = cluster.read(|s| {
            let node = s.store.get::<Node>(&node)?;
            Some(node.annotations.get(annotation::CHASSIS).cloned())
        });
        if let (Some(wanted), Some(seen)) = (wanted, seen)
            && seen.as_ref() != Some(&wanted)
        {
            let patch = json!({"metadata": {"annotations": {annotation::CHASSIS: &*wanted}}});
            let patched = nodes.patch(&node, &PatchParams::default(), &Patch::Merge(patch)).await;
            match patched {
                Ok(_) => tracing::info!(%node, chassis = %wanted, "node is annotated"),
                Err(error) => {
                    tracing::warn!(%node, %error, "cannot annotate the node with its chassis");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        tokio::select! { _ = objects.changed() => {}, _ = rows.changed() => {} }
    }
}
