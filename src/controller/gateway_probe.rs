//! Are the nodes that carry centralized subnets alive? Kubernetes says so 40 s after a node died;
//! an echo to its join address every quarter of a second says so within one.
//!
//! Upstream probes ECMP gateways one after the other every 5 s, and active-backup ones not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet};

use crate::{
    api::{Gateway, GatewayType, Ip, Subnet, Text},
    kernel::{arp, within},
    net::{DualStack, Place},
    ovn::validity,
    store::{Store, View},
};

/// Between two rounds; an answer that takes longer is none.
const PERIOD: Duration = Duration::from_millis(250);
/// So many lost echoes in a row mean that the node is dead: one may be lost to an ARP request.
const LOSSES: u32 = 3;

/// Node -> join addresses.
pub type Targets = BTreeMap<Text, DualStack<IpAddr>>;

/// Nodes whose answers matter now: those that subnets name for centralized gateways.
pub fn targets(store: &Store) -> Targets {
    let subnets = store.iter::<Subnet>();
    let central = subnets.filter(|s| s.gateway_type == Some(GatewayType::Centralized));
    let central = central.filter(|s| validity::conflict(&View::new(store), s).is_none());
    let nodes = central.flat_map(|s| s.gateway_nodes.iter().map(|g| &g.node));
    nodes
        .filter_map(|node| {
            let ip = store.get::<Ip>(&crate::api::names::node_port(node))?;
            Some((node.clone(), ip.addresses))
        })
        .collect()
}

/// Subnets whose active gateway the verdict may change.
pub fn concerned(store: &Store) -> Vec<Text> {
    store.iter::<Gateway>().map(|g| g.subnet.clone()).collect()
}

/// Counts answers; pure.
#[derive(Debug, Default)]
pub struct Silence {
    /// Lost echoes in a row of nodes that have answered before: one that never did may be out of
    /// reach of this host for a reason that is none of its pods'.
    losses: BTreeMap<Text, u32>,
}

impl Silence {
    /// Takes in one round: every target with its answer.
    pub fn note(&mut self, answers: &BTreeMap<Text, Answer>) {
        self.losses.retain(|node, _| answers.contains_key(node));
        for (node, answer) in answers {
            match answer {
                Answer::Heard => {
                    self.losses.insert(node.clone(), 0);
                }
                Answer::Lost => {
                    if let Some(losses) = self.losses.get_mut(node) {
                        *losses = losses.saturating_add(1);
                    }
                }
            }
        }
    }

    /// Nodes that do not answer any more.
    pub fn silent(&self) -> BTreeSet<Text> {
        let silent = self.losses.iter().filter(|(_, losses)| **losses >= LOSSES);
        silent.map(|(node, _)| node.clone()).collect()
    }
}

/// Result of one echo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Heard,
    Lost,
}

/// Probes the targets for ever; `silent` always holds the verdict.
pub async fn probe_gateways(
    mut targets: watch::Receiver<Targets>,
    silent: watch::Sender<BTreeSet<Text>>,
) {
    let mut silence = Silence::default();
    loop {
        let now = targets.borrow_and_update().clone();
        let answers = ask_all(&now).await;
        silence.note(&answers);
        silent.send_if_modified(|known| {
            let found = silence.silent();
            let changed = *known != found;
            if changed {
                tracing::warn!(silent = ?found, "gateway nodes that do not answer");
                *known = found;
            }
            changed
        });
        // Without centralized subnets there is nothing to do until there is one.
        if now.is_empty() && targets.changed().await.is_err() {
            return;
        }
    }
}

/// One round; takes at least a period.
async fn ask_all(targets: &Targets) -> BTreeMap<Text, Answer> {
    let mut round = JoinSet::new();
    for (node, addresses) in targets {
        let Some((_, target)) = addresses.iter().next() else { continue };
        let (node, target) = (node.clone(), *target);
        round.spawn(async move {
            let echo = within(Place::Host, move || arp::echo(&Place::Host, target, PERIOD)).await;
            let answer = match echo {
                Ok(Some(_)) => Answer::Heard,
                Ok(None) => Answer::Lost,
                Err(error) => {
                    tracing::debug!(%node, %error, "gateway node cannot be probed");
                    Answer::Lost
                }
            };
            (node, answer)
        });
    }
    let pause = tokio::time::sleep(PERIOD);
    let mut answers = BTreeMap::new();
    while let Some(result) = round.join_next().await {
        answers.extend(result);
    }
    pause.await;
    answers
}
