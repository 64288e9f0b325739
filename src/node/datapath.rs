//! The node condition `OpenvSwitchDatapath`: which datapath carries the pods of this node. The
//! ovs container writes what it found into `external_ids:ovs-datapath` of its database, for
//! instance `netdev: uplink eth1 in br-phy`.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{api::core::v1 as core, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{ovs_rows::datapath_report, vswitch::Vswitch};
use crate::api::Text;

const RETRY: Duration = Duration::from_secs(5);

/// The status patch for a report: True while the datapath works, False with the reason else.
pub fn condition(report: &str, now: &str) -> Value {
    let failed = report.contains("do not work");
    let kind = report.split([' ', ',', ':']).next().unwrap_or_default();
    let reason = match (failed, kind) {
        (true, _) => "DatapathFailed",
        (false, "netdev") => "UserspaceDatapath",
        (false, _) => "KernelDatapath",
    };
    json!({"status": {"conditions": [{
        "type": "OpenvSwitchDatapath",
        "status": if failed { "False" } else { "True" },
        "reason": reason, "message": report,
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    }]}})
}

/// Reports every change, for ever.
pub async fn report_datapath(client: Client, node: Text, vswitch: Arc<Vswitch>) {
    let nodes: Api<core::Node> = Api::all(client);
    let mut rows = vswitch.changes();
    let mut reported: Option<Text> = None;
    loop {
        rows.mark_unchanged();
        let found = vswitch.read(datapath_report);
        if let Some(report) = found.filter(|r| reported.as_ref() != Some(r)) {
            let patch = Patch::Strategic(condition(&report, &Timestamp::now().to_string()));
            match nodes.patch_status(&node, &PatchParams::default(), &patch).await {
                Ok(_) => reported = Some(report),
                Err(error) => {
                    tracing::warn!(%node, %error, "cannot set condition OpenvSwitchDatapath");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        if rows.changed().await.is_err() {
            return;
        }
    }
}
