//! Rates, delays and losses of ports (manual 3.9), and the traffic mirror (3.11).
//!
//! Directions are those of the pod: what it sends is ingress of the switch (policing of the
//! interface), what it receives leaves through the port's queue.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    HostOp, HostState, HostView, INTEGRATION_BRIDGE, Observed, OvsPort, OvsPortKind, WantedLink,
};
use crate::{
    api::{Text, names::suffix},
    net::LinkState,
};

const HTB: &str = "linux-htb";
/// Type of queueing discipline that delays and drops.
pub const NETEM: &str = "linux-netem";

/// What one port is limited to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortShaping {
    /// `Interface.ingress_policing_rate`, kbit/s; 0 = unlimited.
    pub policing_rate: i64,
    /// `Interface.ingress_policing_burst`, kbit.
    pub policing_burst: i64,
    pub qos: Option<QosRow>,
}

/// A row of QoS and its queue 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QosRow {
    /// `linux-htb` or `linux-netem`.
    pub kind: Text,
    pub other_config: BTreeMap<Text, Text>,
    /// `Queue.other_config` of queue 0.
    pub queue: Option<BTreeMap<Text, Text>>,
    /// Of both rows: `iface-id`, and `pod` for pods.
    pub external_ids: BTreeMap<Text, Text>,
}

/// A port of the integration bridge whose owner may limit it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicView {
    pub port: Text,
    pub shaping: PortShaping,
    /// Annotation `mirror: "true"`.
    pub mirrored: Mirrored,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mirrored {
    Yes,
    No,
}

/// What annotations ask for; `get` takes their suffix. Numbers that cannot be read count as not
/// given. A rate limit excludes netem: a port has one queueing discipline.
pub fn parse_shaping<'a>(
    get: impl Fn(&str) -> Option<&'a str>,
    external_ids: BTreeMap<Text, Text>,
) -> PortShaping {
    let number = |key: &str| get(key).and_then(|t| t.trim().parse::<u64>().ok()).filter(|n| *n > 0);
    let text = |n: u64| Text::from(n.to_string());
    let policing = number(suffix::EGRESS_RATE).unwrap_or(0).min(u64::from(u32::MAX) / 1000) * 1000;
    let policing = i64::try_from(policing).unwrap_or(i64::MAX);
    let entry = |key: &str, value: Option<Text>| value.map(|v| (Text::from(key), v));
    let netem: BTreeMap<Text, Text> = [
        entry("latency", number(suffix::LATENCY).map(|ms| text(ms.saturating_mul(1000)))),
        entry("jitter", number(suffix::JITTER).map(|ms| text(ms.saturating_mul(1000)))),
        entry("limit", number(suffix::LIMIT).map(text)),
        entry("loss", get(suffix::LOSS).and_then(loss)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let row = |kind: &str, other_config, queue| QosRow {
        kind: kind.into(),
        other_config,
        queue,
        external_ids: external_ids.clone(),
    };
    let qos = match number(suffix::INGRESS_RATE) {
        Some(rate) => {
            let max = text(rate.saturating_mul(1_000_000));
            Some(row(HTB, BTreeMap::new(), Some(BTreeMap::from([("max-rate".into(), max)]))))
        }
        None if !netem.is_empty() => Some(row(NETEM, netem, None)),
        None => None,
    };
    PortShaping { policing_rate: policing, policing_burst: policing / 10 * 8, qos }
}

/// Percent, as OVS reads it.
fn loss(text: &str) -> Option<Text> {
    let percent: f64 = text.trim().parse().ok()?;
    (percent > 0.0 && percent <= 100.0).then(|| percent.to_string().into())
}

/// `--enable-mirror`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorScope {
    /// Everything on the bridge.
    All,
    /// Traffic towards pods with the annotation.
    Pods,
}

/// The mirror of the node; its output is a link of the host, made when there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorView {
    /// `--mirror-iface`.
    pub link: Text,
    pub kind: OvsPortKind,
    pub scope: MirrorScope,
}

/// A row of Mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OvsMirror {
    pub output: Text,
    pub scope: MirrorScope,
    /// Ports whose incoming traffic is copied; names.
    pub towards: BTreeSet<Text>,
}

pub(super) fn desired_shaping(view: &HostView, state: &mut HostState) {
    state.shaping = view.nics.iter().map(|n| (n.port.clone(), n.shaping.clone())).collect();
    let Some(mirror) = &view.mirror else { return };
    state.ports.push(OvsPort {
        bridge: INTEGRATION_BRIDGE.into(),
        name: mirror.link.clone(),
        kind: mirror.kind,
        mac: None,
        mtu_request: None,
        external_ids: BTreeMap::new(),
    });
    let up = WantedLink { state: Some(LinkState::Up), ..WantedLink::default() };
    state.links.insert(mirror.link.clone(), up);
    let chosen = view
        .nics
        .iter()
        .filter(|n| n.mirrored == Mirrored::Yes && mirror.scope == MirrorScope::Pods);
    state.mirror = Some(OvsMirror {
        output: mirror.link.clone(),
        scope: mirror.scope,
        towards: chosen.map(|n| n.port.clone()).collect(),
    });
}

fn netem(shaping: &PortShaping) -> Option<&QosRow> {
    shaping.qos.as_ref().filter(|qos| *qos.kind == *NETEM)
}

/// From `seen` to `wanted`. ovs-vswitchd 3.5 keeps new values of a netem discipline to itself: the
/// kernel goes on with the first ones. So such a change is made by way of none, in two passes: the
/// second one sees the port without a discipline, and waits until the kernel has none either
/// (otherwise vswitchd may see both changes as one, and do nothing again).
fn change_shaping(port: &Text, wanted: &PortShaping, seen: &PortShaping) -> Vec<HostOp> {
    let set = |shaping: PortShaping| HostOp::SetShaping { port: port.clone(), shaping };
    match (netem(wanted), netem(seen)) {
        (Some(new), Some(old)) if new.other_config != old.other_config => {
            vec![set(PortShaping { qos: None, ..wanted.clone() })]
        }
        (Some(_), None) => vec![HostOp::AwaitNoNetem(port.clone()), set(wanted.clone())],
        _ => vec![set(wanted.clone())],
    }
}

/// Upstream rewrote netem on every update (its bug 12) and wiped all mirrors of the bridge at its
/// start (bug 2): here only what differs is written, and mirrors of others stay.
pub(super) fn diff_shaping(wanted: &HostState, observed: &Observed) -> Vec<HostOp> {
    let ovs = &observed.ovs;
    let seen =
        wanted.shaping.iter().filter_map(|(port, w)| Some((port, w, ovs.shaping.get(port)?)));
    let mut ops: Vec<HostOp> = seen
        .filter(|(_, wanted, seen)| wanted != seen)
        .flat_map(|(port, wanted, seen)| change_shaping(port, wanted, seen))
        .collect();
    if ovs.stale_queues {
        ops.push(HostOp::SweepQueues);
    }
    // The output port must be there first: a reference needs its row.
    if let Some(mirror) = &wanted.mirror
        && ovs.ports.contains_key(&mirror.output)
        && ovs.mirror.as_ref() != Some(mirror)
    {
        ops.push(HostOp::SetMirror(mirror.clone()));
    }
    ops
}
