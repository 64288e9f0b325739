//! What the node knows of the cluster: fed by the watches, read by CNI requests and by the host
//! loop, which sleep until something changes instead of asking again.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

use tokio::sync::watch;

use crate::{
    api::{Kind, Pod, PodLife, Text},
    host::NatPolicyRule,
    net::DualStack,
    store::{Store, Stored},
};

/// The parts of a Subnet's status that a node acts on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubnetStatus {
    /// `status.activateGateway`: nodes that carry a centralized subnet now.
    pub active_gateways: Vec<Text>,
    /// `status.u2oInterconnectionIP`.
    pub u2o_addresses: DualStack<IpAddr>,
    /// `status.natOutgoingPolicyRules`, in order.
    pub nat_policy: Vec<NatPolicyRule>,
}

/// One thing that a watch saw.
#[derive(Debug, Clone)]
pub enum Change {
    Upsert(Arc<dyn Stored>),
    Remove(Kind, Text),
    SubnetStatus(Text, SubnetStatus),
    /// The first complete list of this kind is in.
    Synced(Kind),
}

#[derive(Debug, Default)]
pub struct State {
    pub store: Store,
    pub subnet_status: HashMap<Text, SubnetStatus>,
    pub synced: BTreeSet<Kind>,
}

/// The state and its version. Cheap to share by `Arc`.
#[derive(Debug)]
pub struct Cluster {
    state: RwLock<State>,
    version: watch::Sender<u64>,
}

impl Default for Cluster {
    fn default() -> Self {
        Cluster { state: RwLock::default(), version: watch::Sender::new(0) }
    }
}

impl Cluster {
    /// Takes changes in; wakes the waiters once if anything differs.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = false;
        for change in changes {
            changed |= match change {
                Change::Upsert(object) => !state.store.upsert(object).is_empty(),
                Change::Remove(kind, key) => {
                    if kind == Kind::Subnet {
                        state.subnet_status.remove(&key);
                    }
                    !state.store.remove(kind, &key).is_empty()
                }
                Change::SubnetStatus(subnet, status) => {
                    state.subnet_status.insert(subnet, status.clone()) != Some(status)
                }
                Change::Synced(kind) => state.synced.insert(kind),
            };
        }
        drop(state);
        if changed {
            self.version.send_modify(|version| *version += 1);
        }
    }

    /// Reads the state; `read` must be short, it blocks the watches.
    pub fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Resolves when `read` gives a value; it is asked now and after every change.
    pub async fn until<T>(&self, mut read: impl FnMut(&State) -> Option<T>) -> T {
        let mut version = self.version.subscribe();
        loop {
            version.mark_unchanged();
            if let Some(value) = self.read(&mut read) {
                return value;
            }
            // The sender lives in self, so this cannot fail.
            let _ = version.changed().await;
        }
    }

    /// A receiver that is woken by every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Resolves when this very pod (`namespace/name` and UID) no longer needs a network.
    pub async fn pod_gone(&self, key: &str, uid: &str) {
        self.until(|state| match state.store.get::<Pod>(key) {
            Some(pod) if &*pod.uid == uid && pod.life == PodLife::Alive => None,
            _ => Some(()),
        })
        .await;
    }
}
