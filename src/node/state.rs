//! What the node knows of the cluster: fed by the watches, read by CNI requests and by the host
//! loop, which sleep until something changes instead of asking again.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
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
    /// UIDs of pods that were seen and are no more, the latest last.
    gone: VecDeque<Text>,
}

/// More pods than this do not end on a node while one request is on its way.
const GONE_KEPT: usize = 1024;

impl State {
    /// `true` when the pod of this UID was seen and exists no longer.
    pub fn has_ended(&self, uid: &str) -> bool {
        self.gone.iter().any(|gone| **gone == *uid)
    }

    /// Takes one change in; `true` when it made a difference.
    pub fn take_in(&mut self, change: Change) -> bool {
        match change {
            Change::Upsert(object) => {
                if object.kind() == Kind::Pod {
                    let uid = object.as_any().downcast_ref::<Pod>().map(|pod| pod.uid.clone());
                    self.remember_end(&object.key(), uid.as_ref());
                }
                !self.store.upsert(object).is_empty()
            }
            Change::Remove(kind, key) => {
                match kind {
                    Kind::Subnet => drop(self.subnet_status.remove(&key)),
                    Kind::Pod => self.remember_end(&key, None),
                    _ => {}
                }
                !self.store.remove(kind, &key).is_empty()
            }
            Change::SubnetStatus(subnet, status) => {
                self.subnet_status.insert(subnet, status.clone()) != Some(status)
            }
            Change::Synced(kind) => self.synced.insert(kind),
        }
    }

    /// Remembers the pod under `key` unless its successor is the same.
    fn remember_end(&mut self, key: &str, successor: Option<&Text>) {
        let old = self.store.get::<Pod>(key).map(|pod| pod.uid.clone());
        if let Some(old) = old.filter(|uid| Some(uid) != successor) {
            self.gone.push_back(old);
            if self.gone.len() > GONE_KEPT {
                self.gone.pop_front();
            }
        }
    }
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
            changed |= state.take_in(change);
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
