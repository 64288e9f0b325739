//! One request at a time per pod interface: a DEL waits until the ADD that it overtakes has undone
//! itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

type Lock = tokio::sync::Mutex<()>;
/// Container and interface.
type Nic = (String, String);

/// Locks by container and interface; they vanish with their last user.
#[derive(Debug, Clone, Default)]
pub struct NicLocks(Arc<Mutex<HashMap<Nic, Weak<Lock>>>>);

impl NicLocks {
    /// The lock of one interface.
    pub fn of(&self, container_id: &str, ifname: &str) -> Arc<Lock> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        let slot = locks.entry((container_id.to_owned(), ifname.to_owned())).or_default();
        match slot.upgrade() {
            Some(lock) => lock,
            None => {
                let lock = Arc::default();
                *slot = Arc::downgrade(&lock);
                lock
            }
        }
    }

    /// Containers and interfaces with a request under way.
    pub fn busy(&self) -> Vec<Nic> {
        let locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.iter().filter(|(_, l)| l.strong_count() > 0).map(|(k, _)| k.clone()).collect()
    }
}
