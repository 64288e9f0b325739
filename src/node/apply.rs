//! The executor: host operations to kernel calls and OVSDB transactions. The host loop and CNI
//! requests use the same one.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::vswitch::{Vswitch, VswitchError};
use crate::{
    host::HostOp,
    kernel::{self, Effort, Netlink, arp, ipset, iptables, sysctl},
    net::Place,
    node::ovs_rows::is_ovs,
};

/// The kernel's name of the discipline that delays and drops.
pub(super) const NETEM_QDISC: &str = "netem";
/// vswitchd takes a discipline away at once, unless it does not run.
const NETEM_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    #[error(transparent)]
    Vswitch(#[from] VswitchError),
    #[error("kernel calls were interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// Applies operations. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Executor {
    vswitch: Arc<Vswitch>,
    /// Which rule store iptables batches go to; found at the first batch.
    firewall: Arc<OnceLock<iptables::Backend>>,
}

impl Executor {
    pub fn new(vswitch: Arc<Vswitch>) -> Self {
        Executor { vswitch, firewall: Arc::default() }
    }

    pub fn vswitch(&self) -> &Arc<Vswitch> {
        &self.vswitch
    }

    /// The rule store of this node.
    pub fn backend(&self) -> Result<iptables::Backend, kernel::Error> {
        if let Some(backend) = self.firewall.get() {
            return Ok(*backend);
        }
        let found = iptables::detect_backend()?;
        Ok(*self.firewall.get_or_init(|| found))
    }

    /// Applies in order; neighbouring database operations become one transaction. Stops at the
    /// first failure.
    pub async fn apply(&self, ops: Vec<HostOp>) -> Result<(), ApplyError> {
        let mut ops = ops.into_iter().peekable();
        while let Some(first) = ops.next() {
            let ovs = is_ovs(&first);
            let mut group = vec![first];
            while let Some(next) = ops.next_if(|op| is_ovs(op) == ovs) {
                group.push(next);
            }
            if ovs {
                self.vswitch.apply(&group).await?;
            } else {
                self.apply_kernel(group).await?;
            }
        }
        Ok(())
    }

    /// Applies in order and goes on after a failure: one broken sysctl must not keep the rest of
    /// the node from its state. Returns the failures.
    pub async fn apply_each(&self, ops: Vec<HostOp>) -> Vec<ApplyError> {
        let mut errors = Vec::new();
        let mut ops = ops.into_iter().peekable();
        while let Some(first) = ops.next() {
            let result = if is_ovs(&first) {
                let mut group = vec![first];
                while let Some(next) = ops.next_if(is_ovs) {
                    group.push(next);
                }
                self.vswitch.apply(&group).await.map_err(ApplyError::from)
            } else {
                self.apply_kernel(vec![first]).await
            };
            errors.extend(result.err());
        }
        errors
    }

    /// Applies what can be applied, for a rollback; failures are logged and passed over.
    pub async fn apply_best_effort(&self, ops: Vec<HostOp>) {
        let (ovs, kernel): (Vec<HostOp>, Vec<HostOp>) = ops.into_iter().partition(is_ovs);
        for op in kernel {
            if let Err(error) = self.apply_kernel(vec![op]).await {
                tracing::warn!(%error, "rollback step failed");
            }
        }
        if let Err(error) = self.vswitch.apply(&ovs).await {
            tracing::warn!(%error, "rollback of OVS ports failed; the next garbage collection has it");
        }
    }

    async fn apply_kernel(&self, ops: Vec<HostOp>) -> Result<(), ApplyError> {
        if ops.is_empty() {
            return Ok(());
        }
        let executor = self.clone();
        Ok(tokio::task::spawn_blocking(move || executor.apply_blocking(&ops)).await??)
    }

    fn apply_blocking(&self, ops: &[HostOp]) -> Result<(), kernel::Error> {
        self.apply_by(ops, &mut Sockets::default())
    }

    /// Kernel operations through sockets that are open already.
    pub(super) fn apply_by(
        &self,
        ops: &[HostOp],
        sockets: &mut Sockets,
    ) -> Result<(), kernel::Error> {
        ops.iter().try_for_each(|op| self.apply_one(op, sockets))
    }

    fn apply_one(&self, op: &HostOp, sockets: &mut Sockets) -> Result<(), kernel::Error> {
        match op {
            HostOp::CreateVeth(pair) => sockets.of(&Place::Host)?.create_veth(pair),
            HostOp::SetLink { place, link, change } => sockets.of(place)?.set_link(link, change),
            HostOp::DeleteLink { place, link } => {
                gone_is_fine(place, sockets.of(place).and_then(|s| s.delete_link(link)))
            }
            HostOp::TxChecksumOff { place, link } => sockets.of(place)?.disable_tx_checksum(link),
            HostOp::AddAddress { place, link, cidr, dad } => {
                sockets.of(place)?.add_address(link, *cidr, *dad)
            }
            HostOp::RemoveAddress { place, link, cidr } => {
                gone_is_fine(place, sockets.of(place).and_then(|s| s.remove_address(link, *cidr)))
            }
            HostOp::ReplaceRoute { place, route } => sockets.of(place)?.replace_route(route),
            HostOp::RemoveRoute { place, route } => {
                gone_is_fine(place, sockets.of(place).and_then(|s| s.remove_route(route)))
            }
            HostOp::AddRule(rule) => sockets.of(&Place::Host)?.add_rule(rule),
            HostOp::RemoveRule(rule) => sockets.of(&Place::Host)?.remove_rule(rule),
            HostOp::AwaitNoNetem(link) => {
                sockets.of(&Place::Host)?.await_other_qdisc(link, NETEM_QDISC, NETEM_LIMIT)
            }
            HostOp::WriteSysctl { name, value } => sysctl::write(name, value),
            HostOp::RestoreIpsets(batch) => ipset::restore(batch),
            HostOp::RestoreIptables { family, batch } => {
                iptables::restore(self.backend()?, *family, batch)
            }
            HostOp::Announce { place, link, mac, address } => {
                arp::announce(place, link, *mac, *address)
            }
            HostOp::SetExternalIds(_)
            | HostOp::SetOvsPort(_)
            | HostOp::SetInterfaceIds { .. }
            | HostOp::RemoveOvsPort { .. }
            | HostOp::SetShaping { .. }
            | HostOp::SweepQueues
            | HostOp::SetMirror(_)
            | HostOp::SetBridge(_)
            | HostOp::RemoveBridge(_) => Ok(()),
        }
    }
}

/// A pod's namespace that is gone has taken everything in it along.
fn gone_is_fine(place: &Place, result: Result<(), kernel::Error>) -> Result<(), kernel::Error> {
    match (place, result) {
        (Place::Namespace(_), Err(e)) if e.is_missing() => Ok(()),
        (_, other) => other,
    }
}

/// One netlink socket per namespace that a batch touches.
#[derive(Default)]
pub(super) struct Sockets(HashMap<Place, Netlink>);

impl Sockets {
    /// What has been done through them.
    pub(super) fn effort(&self) -> Effort {
        self.0.values().map(Netlink::effort).fold(Effort::default(), |sum, effort| sum + effort)
    }

    pub(super) fn of(&mut self, place: &Place) -> Result<&mut Netlink, kernel::Error> {
        match self.0.entry(place.clone()) {
            std::collections::hash_map::Entry::Occupied(found) => Ok(found.into_mut()),
            std::collections::hash_map::Entry::Vacant(slot) => {
                Ok(slot.insert(Netlink::open(place)?))
            }
        }
    }
}
