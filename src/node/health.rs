//! Is the join network reachable? The answer is the node condition `NetworkUnavailable` and part
//! of the daemon's readiness. Upstream exits when it is not; restarting heals nothing that waiting
//! does not, and takes the CNI server away from pods that need it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use k8s_openapi::{api::core::v1::Node, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{reconcile::join_gateways, state::Cluster};
use crate::{
    api::Text,
    kernel::{arp, within},
    net::{DualStack, Place},
};

/// Between probes of a network that works.
const PERIOD: Duration = Duration::from_secs(5);
/// Between probes of one that does not (yet).
const EAGER_PERIOD: Duration = Duration::from_millis(500);
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many lost probes in a row are an outage, as upstream counts.
const LOSSES: u32 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Not probed to a result yet.
    Unknown,
    Reachable,
    Unreachable,
}

/// Counts probes; pure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub reach: Reach,
    losses: u32,
}

impl Default for Verdict {
    fn default() -> Self {
        Verdict { reach: Reach::Unknown, losses: 0 }
    }
}

/// Result of one round of probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    Answered,
    Lost,
}

impl Verdict {
    #[must_use]
    pub fn after(self, probe: Probe) -> Self {
        match probe {
            Probe::Answered => Verdict { reach: Reach::Reachable, losses: 0 },
            Probe::Lost => {
                let losses = self.losses.saturating_add(1);
                let reach = if losses >= LOSSES { Reach::Unreachable } else { self.reach };
                Verdict { reach, losses }
            }
        }
    }
}

/// The status patch for a verdict; `None` while there is nothing to say.
pub fn condition(reach: Reach, gateways: &str, now: &str) -> Option<Value> {
    let (status, reason, word) = match reach {
        Reach::Unknown => return None,
        Reach::Reachable => ("False", "JoinSubnetGatewayReachable", "succeeded"),
        Reach::Unreachable => ("True", "JoinSubnetGatewayUnreachable", "failed"),
    };
    Some(json!({"status": {"conditions": [{
        "type": "NetworkUnavailable", "status": status, "reason": reason,
        "message": format!("ping check to gateway ip {gateways} {word}"),
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    }]}}))
}

/// Probes the join gateways for ever and reports every change of the verdict.
pub struct JoinHealth {
    pub cluster: Arc<Cluster>,
    pub node: Text,
    /// `None` reports to nobody but `reach`.
    pub client: Option<Client>,
    pub reach: watch::Sender<Reach>,
}

impl JoinHealth {
    pub async fn run(self) {
        let (mut verdict, mut reported) = (Verdict::default(), None);
        loop {
            let gateways = self
                .cluster
                .until(|s| Some(join_gateways(s, &self.node)).filter(|g| !g.is_empty()))
                .await;
            verdict = verdict.after(probe(&gateways).await);
            let text = gateways.to_string();
            if self.reach.send_replace(verdict.reach) != verdict.reach {
                match verdict.reach {
                    Reach::Unreachable => {
                        tracing::warn!(gateways = %text, "join gateway is silent")
                    }
                    _ => tracing::info!(gateways = %text, "join gateway answers"),
                }
            }
            if reported != Some(verdict.reach) && self.report(verdict.reach, &text).await {
                reported = Some(verdict.reach);
            }
            let healthy = verdict.reach == Reach::Reachable;
            tokio::time::sleep(if healthy { PERIOD } else { EAGER_PERIOD }).await;
        }
    }

    /// `false` when it has to be said again.
    async fn report(&self, reach: Reach, gateways: &str) -> bool {
        let (Some(client), Some(patch)) =
            (&self.client, condition(reach, gateways, &Timestamp::now().to_string()))
        else {
            return true;
        };
        let nodes: Api<Node> = Api::all(client.clone());
        let (params, patch) = (PatchParams::default(), Patch::Strategic(patch));
        let patched = nodes.patch_status(&self.node, &params, &patch);
        match tokio::time::timeout(PERIOD, patched).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                tracing::warn!(node = %self.node, %error, "cannot set condition NetworkUnavailable");
                false
            }
            Err(_) => false,
        }
    }
}

async fn probe(gateways: &DualStack<IpAddr>) -> Probe {
    for (_, gateway) in gateways.iter() {
        let target = *gateway;
        let answer = within(Place::Host, move || arp::echo(&Place::Host, target, PATIENCE)).await;
        match answer {
            Ok(Some(_)) => {}
            Ok(None) => return Probe::Lost,
            Err(error) => {
                tracing::debug!(%error, "join gateway cannot be probed");
                return Probe::Lost;
            }
        }
    }
    Probe::Answered
}
