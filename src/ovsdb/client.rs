//! A client of one database that stays connected.
//!
//! The client owns no data. It hands every update to its owner, who applies it to a
//! [`super::replica::Replica`]. ovsdb-server sends the updates that a transaction causes before
//! the reply to it, and the client keeps that order: when [`Client::transact`] resolves, they are
//! in the event channel already.
//!
//! The event channel is unbounded on purpose: an owner that waits for a transaction does not
//! read events, and a full channel would keep the reply from being read.

use std::{collections::HashMap, time::Duration};

use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};

use super::{
    datum::Uuid,
    endpoint::Endpoint,
    replica::Update,
    schema::{Column, Database, Table},
    session::{self, Ending, Link},
    tls::TlsFiles,
    transaction::{Outcome, Refusal, Transaction},
    wire::{self, ConnectionError},
};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
// Short: a client that waits is an election or a server start that is over and not yet noticed.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// An endpoint whose host gave no answer is passed over for so long while others answer: waiting
/// for it in every round would keep the client from the leader that the others have just chosen.
const PASSED_OVER: Duration = Duration::from_secs(10);

/// Which member of a cluster to use. A standalone database counts as its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaderOnly {
    Yes,
    No,
}

#[derive(Debug, Clone)]
pub struct Options {
    pub database: &'static Database,
    /// Tried in turn.
    pub endpoints: Vec<Endpoint>,
    /// Needed for `ssl:` endpoints.
    pub tls: Option<TlsFiles>,
    /// Tables and columns to follow; may be empty.
    pub monitored: Vec<(&'static Table, &'static [Column])>,
    pub leader_only: LeaderOnly,
    /// A server silent for so long is asked for a sign of life, and given up after as long again.
    /// Zero: never.
    pub probe: Duration,
    /// For opening a connection, and then for learning whether the server is suitable.
    pub connect_timeout: Duration,
    /// A transaction without an answer for so long ends the connection.
    pub transact_timeout: Duration,
}

impl Options {
    /// Leader only, with the usual times and nothing monitored.
    pub fn new(database: &'static Database, endpoints: Vec<Endpoint>) -> Self {
        Options {
            database,
            endpoints,
            tls: None,
            monitored: Vec::new(),
            leader_only: LeaderOnly::Yes,
            probe: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            transact_timeout: Duration::from_secs(30),
        }
    }
}

#[derive(Debug)]
pub enum Event {
    /// Connected to a suitable server; with `update` applied the replica is current.
    Connected { endpoint: Endpoint, update: Update },
    /// Content changed, or a snapshot that [`Client::resynchronize`] asked for.
    Updated(Update),
    /// Not connected. The client goes on trying and repeats this after each vain round.
    Disconnected { reason: ConnectionError },
}

#[derive(Debug, thiserror::Error)]
pub enum OvsdbError {
    /// Nothing was executed. Unless it is an unmet wait, the replica may be wrong: call
    /// [`Client::resynchronize`].
    #[error("{database}: transaction refused: {refusal}")]
    Refused { database: &'static str, refusal: Refusal },
    /// The transaction was not sent.
    #[error("{database}: not connected")]
    NotConnected { database: &'static str },
    /// It is not known whether the transaction was executed; the update that comes with the
    /// next [`Event::Connected`] shows it.
    #[error("{database}: connection lost before the answer: {reason}")]
    Lost { database: &'static str, reason: String },
}

pub(super) type TransactReply = oneshot::Sender<Result<Outcome, OvsdbError>>;

pub(super) enum Command {
    /// The parameters and the number of operations.
    Transact {
        params: Value,
        count: usize,
        reply: TransactReply,
    },
    Resynchronize,
}

/// A handle; the connection ends when the last one is dropped, or the event receiver.
#[derive(Debug, Clone)]
pub struct Client {
    database: &'static Database,
    commands: mpsc::UnboundedSender<Command>,
}

impl Client {
    /// Starts the client. Returns at once; the first event tells how it went.
    pub fn connect(options: Options) -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (commands, received) = mpsc::unbounded_channel();
        let (events, receiver) = mpsc::unbounded_channel();
        let client = Client { database: options.database, commands };
        tokio::spawn(run(options, Link { commands: received, events, last: None }));
        (client, receiver)
    }

    /// Executes a transaction. Several may be in flight; they are executed in the order of the
    /// calls.
    pub async fn transact(&self, transaction: &Transaction) -> Result<Outcome, OvsdbError> {
        let not_connected = || OvsdbError::NotConnected { database: self.database.name };
        let (reply, answer) = oneshot::channel();
        let params = transaction.to_params(self.database);
        let count = transaction.operations.len();
        self.commands
            .send(Command::Transact { params, count, reply })
            .map_err(|_| not_connected())?;
        answer.await.unwrap_or_else(|_| Err(not_connected()))
    }

    /// Asks for a snapshot, because the replica proved wrong.
    pub fn resynchronize(&self) {
        let _ = self.commands.send(Command::Resynchronize);
    }
}

async fn run(options: Options, mut link: Link) {
    let mut pause = FIRST_PAUSE;
    let mut next = 0;
    let mut passed: HashMap<&Endpoint, Instant> = HashMap::new();
    loop {
        let mut reason = ConnectionError::NoEndpoint;
        passed.retain(|_, until| Instant::now() < *until);
        if passed.len() == options.endpoints.len() {
            passed.clear();
        }
        for _ in 0..options.endpoints.len() {
            let Some(endpoint) = options.endpoints.get(next % options.endpoints.len()) else {
                break;
            };
            next += 1;
            if passed.contains_key(endpoint) {
                continue;
            }
            let ended = visit(endpoint, &options, &mut link).await;
            reason = ended.reason;
            if reason.is_silence() {
                passed.insert(endpoint, Instant::now() + PASSED_OVER);
            }
            if matches!(reason, ConnectionError::Dropped) {
                return;
            }
            if ended.was_ready {
                pause = FIRST_PAUSE;
                break;
            }
        }
        if link.events.send(Event::Disconnected { reason }).is_err() {
            return;
        }
        if link.refuse_during(sleep(pause), options.database).await.is_none() {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Connects to one endpoint and stays while all is well.
async fn visit(endpoint: &Endpoint, options: &Options, link: &mut Link) -> Ending {
    let limit = options.connect_timeout;
    let opening = timeout(limit, wire::open(endpoint, options.tls.as_ref()));
    match link.refuse_during(opening, options.database).await {
        None => Ending::before_ready(ConnectionError::Dropped),
        Some(Ok(Ok(stream))) => session::run(stream, endpoint, options, link).await,
        Some(Ok(Err(error))) => Ending::before_ready(error),
        Some(Err(_)) => Ending::before_ready(ConnectionError::ConnectTimeout {
            endpoint: endpoint.clone(),
            seconds: limit.as_secs_f32(),
        }),
    }
}

impl Link {
    /// Runs `work` while it refuses commands; `None` when nobody wants the client any longer.
    async fn refuse_during<F: Future>(
        &mut self,
        work: F,
        database: &Database,
    ) -> Option<F::Output> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                () = self.events.closed() => return None,
                command = self.commands.recv() => self.refuse(command?, database),
            }
        }
    }

    pub(super) fn refuse(&mut self, command: Command, database: &Database) {
        match command {
            Command::Transact { reply, .. } => {
                let _ = reply.send(Err(OvsdbError::NotConnected { database: database.name }));
            }
            Command::Resynchronize => self.last = None,
        }
    }
}

/// The transaction up to which the owner's replica is current, as the wire writes it.
pub(super) fn transaction_text(last: Option<Uuid>) -> String {
    last.unwrap_or_default().to_string()
}
