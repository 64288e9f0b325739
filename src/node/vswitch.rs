//! The local Open vSwitch database: a replica that is always at hand, means to wait for it to
//! change, and transactions.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
    task::Poll,
    time::Duration,
};

use tokio::sync::{mpsc, watch};

use super::ovs_rows::{MONITORED, RowError, is_ovs, plan_transaction};
use crate::{
    host::HostOp,
    ovsdb::{
        client::{Client, Event, LeaderOnly, Options, OvsdbError},
        endpoint::Endpoint,
        replica::Replica,
        schema::vswitch,
    },
};

/// Socket of ovsdb-server on every node.
pub const DEFAULT_SOCKET: &str = "/run/openvswitch/db.sock";

/// A refused transaction is planned anew on a fresh snapshot this often.
const ATTEMPTS: usize = 3;

/// How long a fresh snapshot may take.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(2);

/// How long a request waits for a server that is starting.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum VswitchError {
    #[error(transparent)]
    Row(#[from] RowError),
    #[error(transparent)]
    Ovsdb(#[from] OvsdbError),
    #[error("the vswitch database is not reachable; is the ovs-ovn pod running?")]
    Unreachable,
}

/// Whether the replica is current.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    Down,
    Up,
}

/// The replica and the connection that feeds it.
#[derive(Debug)]
pub struct Vswitch {
    client: Client,
    replica: RwLock<Replica>,
    /// Whoever takes an event out applies it before the lock is released, so events keep their
    /// order whether the pump or a writer takes them.
    events: Mutex<mpsc::UnboundedReceiver<Event>>,
    state: watch::Sender<(u64, Connection)>,
}

impl Vswitch {
    /// Connects in the background to the server at `socket`.
    pub fn connect(socket: &Path) -> Arc<Self> {
        let mut options = Options::new(&vswitch::DATABASE, vec![Endpoint::Unix(socket.to_owned())]);
        options.leader_only = LeaderOnly::No;
        options.monitored = MONITORED.to_vec();
        let (client, events) = Client::connect(options);
        let this = Arc::new(Vswitch {
            client,
            replica: RwLock::new(Replica::new(&vswitch::DATABASE, MONITORED)),
            events: Mutex::new(events),
            state: watch::Sender::new((0, Connection::Down)),
        });
        tokio::spawn(pump(Arc::downgrade(&this)));
        this
    }

    /// Reads the replica; `read` must be short.
    pub fn read<T>(&self, read: impl FnOnce(&Replica) -> T) -> T {
        read(&self.replica.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn connection(&self) -> Connection {
        self.state.borrow().1
    }

    /// A receiver that is woken by every change of content or connection.
    pub fn changes(&self) -> watch::Receiver<(u64, Connection)> {
        self.state.subscribe()
    }

    /// Resolves when `read` gives a value; it is asked now and after every change.
    pub async fn until<T>(&self, mut read: impl FnMut(&Replica) -> Option<T>) -> T {
        let mut state = self.state.subscribe();
        loop {
            state.mark_unchanged();
            if let Some(value) = self.read(&mut read) {
                return value;
            }
            let _ = state.changed().await;
        }
    }

    /// Resolves when the replica is current.
    pub async fn connected(&self) {
        let _ = self.state.subscribe().wait_for(|(_, c)| *c == Connection::Up).await;
    }

    /// The same for requests that cannot wait for long. An empty replica must never be taken for
    /// an empty switch: a DEL would remove nothing and report success.
    pub async fn ready(&self) -> Result<(), VswitchError> {
        let connected = tokio::time::timeout(CONNECT_PATIENCE, self.connected()).await;
        connected.map_err(|_| VswitchError::Unreachable)
    }

    /// Makes the database operations among `ops` true, in one transaction. The replica shows the
    /// result when this returns.
    pub async fn apply(&self, ops: &[HostOp]) -> Result<(), VswitchError> {
        if !ops.iter().any(is_ovs) {
            return Ok(());
        }
        self.ready().await?;
        for attempt in 1..=ATTEMPTS {
            let Some(transaction) = self.read(|replica| plan_transaction(replica, ops))? else {
                return Ok(());
            };
            match self.client.transact(&transaction).await {
                Ok(_) => {
                    self.drain();
                    return Ok(());
                }
                Err(error @ OvsdbError::Refused { .. }) if attempt < ATTEMPTS => {
                    tracing::debug!(%error, "transaction planned anew on a snapshot");
                    self.resynchronize().await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn resynchronize(&self) {
        let mut state = self.state.subscribe();
        self.client.resynchronize();
        let _ = tokio::time::timeout(SNAPSHOT_PATIENCE, state.changed()).await;
    }

    /// Applies what the client has queued.
    fn drain(&self) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(event) = events.try_recv() {
            self.take_in(event);
        }
    }

    fn take_in(&self, event: Event) {
        let connection = match event {
            Event::Connected { update, .. } | Event::Updated(update) => {
                let mut replica = self.replica.write().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = replica.apply(&update) {
                    tracing::error!(%error, "vswitch replica is wrong, asking for a snapshot");
                    self.client.resynchronize();
                }
                Connection::Up
            }
            Event::Disconnected { reason } => {
                if self.connection() == Connection::Up {
                    tracing::warn!(error = %reason, "lost the vswitch database");
                }
                Connection::Down
            }
        };
        self.state.send_modify(|state| *state = (state.0 + 1, connection));
    }
}

/// Applies events as they come, as long as somebody holds the [`Vswitch`].
async fn pump(vswitch: std::sync::Weak<Vswitch>) {
    loop {
        let more = std::future::poll_fn(|context| {
            let Some(vswitch) = vswitch.upgrade() else { return Poll::Ready(false) };
            let mut events = vswitch.events.lock().unwrap_or_else(PoisonError::into_inner);
            match events.poll_recv(context) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(None) => Poll::Ready(false),
                Poll::Ready(Some(event)) => {
                    vswitch.take_in(event);
                    Poll::Ready(true)
                }
            }
        });
        if !more.await {
            return;
        }
    }
}
