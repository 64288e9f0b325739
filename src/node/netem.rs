//! Does the kernel really delay and drop? Open vSwitch only logs that a queueing discipline cannot
//! be made (sch_netem is not in every kernel), so the agent looks and tells the pod.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{
    apply::NETEM_QDISC, events::PodEvents, ovs_rows::observe_ovs, state::Cluster, vswitch::Vswitch,
};
use crate::{
    api::{Pod, Text},
    host::{NETEM, ObservedOvs},
    kernel::{Netlink, within},
    net::Place,
};

/// vswitchd applies a row within this time.
const SETTLE: Duration = Duration::from_secs(3);

/// Ports with a netem row, and the pods that they serve (`namespace/name`).
pub fn delayed_ports(ovs: &ObservedOvs) -> Vec<(Text, Text)> {
    let rows = ovs.shaping.iter().filter_map(|(port, s)| Some((port, s.qos.as_ref()?)));
    rows.filter(|(_, qos)| &*qos.kind == NETEM)
        .filter_map(|(port, qos)| Some((port.clone(), qos.external_ids.get("pod")?.clone())))
        .collect()
}

/// Watches for ever; every port is judged once.
pub async fn watch_netem(cluster: Arc<Cluster>, vswitch: Arc<Vswitch>, events: PodEvents) {
    let mut changes = vswitch.changes();
    let mut judged: BTreeSet<Text> = BTreeSet::new();
    loop {
        changes.mark_unchanged();
        let mut delayed = vswitch.read(|replica| delayed_ports(&observe_ovs(replica)));
        judged.retain(|port| delayed.iter().any(|(p, _)| p == port));
        delayed.retain(|(port, _)| !judged.contains(port));
        if delayed.is_empty() {
            if changes.changed().await.is_err() {
                return;
            }
            continue;
        }
        tokio::time::sleep(SETTLE).await;
        for (port, pod) in delayed {
            let link = port.clone();
            let found = within(Place::Host, move || Netlink::open(&Place::Host)?.root_qdisc(&link));
            let kind = found.await.ok().flatten().unwrap_or_default();
            judged.insert(port);
            let pod = cluster.read(|state| state.store.shared::<Pod>(&pod));
            if let Some(pod) = pod.filter(|_| kind != NETEM_QDISC) {
                events.warn(&pod, "NetemUnavailable", format!(
                    "annotations latency, jitter, limit and loss have no effect on this node: its \
                     kernel has no netem (queueing discipline {kind:?}); load module sch_netem"
                )).await;
            }
        }
    }
}
