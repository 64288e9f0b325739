//! One connection from the first message to the last: choosing, loading, following.

use std::{collections::BTreeMap, time::Duration};

use futures::future::BoxFuture;
use serde_json::{Map, Value, json, value::RawValue};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    client::{Command, Event, LeaderOnly, Options, OvsdbError, TransactReply, transaction_text},
    datum::{Atom, Datum, Uuid},
    dial::{self, Answer},
    endpoint::Endpoint,
    glance::{self, Act, Glance, Verdict},
    replica::{Replica, Row, Scope, Update},
    schema::{Column, Table, server},
    transaction::{Outcome, Refusal},
    wire::{self, ConnectionError, Envelope, Reader, Stream, Unsuitable, Writer},
};

/// What outlives a connection.
pub(super) struct Link {
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) events: mpsc::UnboundedSender<Event>,
    /// The last transaction handed to the owner.
    pub(super) last: Option<Uuid>,
}

/// How a connection ended.
pub(super) struct Ending {
    pub(super) reason: ConnectionError,
    /// The owner had been told that it is connected.
    pub(super) was_ready: bool,
}

impl Ending {
    pub(super) fn before_ready(reason: ConnectionError) -> Self {
        Ending { reason, was_ready: false }
    }
}

const FAR: Duration = Duration::from_secs(3600);

const SERVERS: &str = "servers";
const SERVER_COLUMNS: &[Column] = &[
    server::database::CONNECTED,
    server::database::LEADER,
    server::database::MODEL,
    server::database::NAME,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waits until it is known whether the server is suitable.
    Choosing,
    /// Waits for the content.
    Loading,
    Ready,
}

/// A request without an answer so far.
enum Pending {
    Servers,
    Monitor,
    Echo,
    Cancel,
    Transact { count: usize, deadline: Instant, reply: TransactReply },
}

struct Session<'a> {
    endpoint: &'a Endpoint,
    options: &'a Options,
    link: &'a mut Link,
    writer: Writer,
    phase: Phase,
    /// Rows of `_Server.Database`.
    servers: Replica,
    /// Changes with each snapshot asked for; updates of older monitors are ignored.
    monitor: u64,
    next_id: u64,
    pending: BTreeMap<u64, Pending>,
    /// When the server must have told whether it is suitable.
    choose_by: Instant,
    probed: Option<Instant>,
    /// Where there is another member to use instead.
    glance: Option<Glance>,
    dialling: Option<BoxFuture<'static, Answer>>,
}

type Step = Result<(), ConnectionError>;

/// Stays until the connection is lost or the server is no longer suitable.
pub(super) async fn run(
    stream: Box<dyn Stream>,
    endpoint: &Endpoint,
    options: &Options,
    link: &mut Link,
) -> Ending {
    let (mut reader, writer) = wire::start(stream);
    let mut session = Session {
        endpoint,
        options,
        link,
        writer,
        phase: Phase::Choosing,
        servers: Replica::new(&server::DATABASE, &[(&server::DATABASE_TABLE, SERVER_COLUMNS)]),
        monitor: 0,
        next_id: 0,
        pending: BTreeMap::new(),
        choose_by: Instant::now() + options.connect_timeout,
        probed: None,
        glance: (options.endpoints.len() > 1 && !options.probe.is_zero()).then(Glance::default),
        dialling: None,
    };
    let reason = match session.follow(&mut reader).await {
        Ok(()) => ConnectionError::Dropped,
        Err(reason) => reason,
    };
    session.lose(&reason);
    Ending { reason, was_ready: session.phase == Phase::Ready }
}

impl Session<'_> {
    /// `Ok` when nobody wants the client any longer.
    async fn follow(&mut self, reader: &mut Reader) -> Step {
        let monitored = json!({"Database": [{"columns": names(SERVER_COLUMNS)}]});
        self.request("monitor_cond", json!(["_Server", SERVERS, monitored]), Pending::Servers);
        loop {
            let deadline = self.deadline(reader.last_read);
            tokio::select! {
                message = reader.next() => {
                    let endpoint = || self.endpoint.clone();
                    let message = message
                        .map_err(|source| ConnectionError::Read { endpoint: endpoint(), source })?
                        .ok_or_else(|| ConnectionError::Closed { endpoint: endpoint() })?;
                    self.receive(&message)?;
                }
                command = self.link.commands.recv() => match command {
                    Some(command) => self.execute(command),
                    None => return Ok(()),
                },
                () = self.link.events.closed() => return Ok(()),
                answer = answered(&mut self.dialling) => self.observe_host(answer)?,
                () = sleep_until(deadline) => self.check_time(reader.last_read)?,
            }
        }
    }

    fn request(&mut self, method: &str, params: Value, pending: Pending) {
        let id = self.next_id;
        self.next_id += 1;
        self.pending.insert(id, pending);
        let message = json!({"method": method, "params": params, "id": id});
        self.writer.send(message.to_string());
    }

    fn protocol(&self, reason: impl ToString) -> ConnectionError {
        ConnectionError::Protocol { endpoint: self.endpoint.clone(), reason: reason.to_string() }
    }

    // --- time -----------------------------------------------------------------------------

    fn first_transact(&self) -> Option<Instant> {
        self.pending.values().find_map(|p| match p {
            Pending::Transact { deadline, .. } => Some(*deadline),
            _ => None,
        })
    }

    /// When the server must have given a sign of life, or be asked for one.
    fn quiet_until(&self, last_read: Instant) -> Instant {
        if self.options.probe.is_zero() {
            return Instant::now() + FAR;
        }
        let since = self.probed.map_or(last_read, |sent| sent.max(last_read));
        since + self.options.probe
    }

    fn deadline(&self, last_read: Instant) -> Instant {
        let choosing = (self.phase == Phase::Choosing).then_some(self.choose_by);
        let glance = self.glance.as_ref().filter(|_| self.dialling.is_none());
        let glance = glance.map(|glance| glance.due(last_read));
        let times = [choosing, self.first_transact(), Some(self.quiet_until(last_read)), glance];
        times.into_iter().flatten().min().unwrap_or(last_read + FAR)
    }

    fn check_time(&mut self, last_read: Instant) -> Step {
        let (now, endpoint) = (Instant::now(), self.endpoint.clone());
        if self.phase == Phase::Choosing && now >= self.choose_by {
            let seconds = self.options.connect_timeout.as_secs_f32();
            return Err(ConnectionError::ConnectTimeout { endpoint, seconds });
        }
        if self.first_transact().is_some_and(|deadline| now >= deadline) {
            let seconds = self.options.transact_timeout.as_secs_f32();
            return Err(ConnectionError::NoAnswer { endpoint, seconds });
        }
        self.look(last_read, now);
        if now < self.quiet_until(last_read) {
            return Ok(());
        }
        if self.probed.is_some_and(|sent| sent >= last_read) {
            let seconds = (now - last_read).as_secs_f32();
            return Err(ConnectionError::Silent { endpoint, seconds });
        }
        self.probed = Some(now);
        self.request("echo", json!([]), Pending::Echo);
        Ok(())
    }

    /// Asks a quiet server, and dials the host of one that does not answer.
    fn look(&mut self, last_read: Instant, now: Instant) {
        let Some(glance) = self.glance.as_mut().filter(|g| now >= g.due(last_read)) else { return };
        if self.dialling.is_some() {
            return;
        }
        match (glance.act(last_read, now), self.endpoint) {
            (Act::Ask, _) => self.request("echo", json!([]), Pending::Echo),
            (Act::Dial, Endpoint::Tcp { host, port } | Endpoint::Ssl { host, port }) => {
                let target = (host.clone(), *port);
                self.dialling = Some(Box::pin(dial::dial(target, glance::DIAL)));
            }
            (Act::Dial, Endpoint::Unix(_)) => {}
        }
    }

    fn observe_host(&mut self, answer: Answer) -> Step {
        let verdict = self.glance.as_mut().map(|glance| glance.observe(answer, Instant::now()));
        match verdict {
            Some(Verdict::HostSilent) => {
                Err(ConnectionError::HostSilent { endpoint: self.endpoint.clone() })
            }
            _ => Ok(()),
        }
    }

    // --- the owner's side -------------------------------------------------------------------

    fn execute(&mut self, command: Command) {
        match (command, self.phase) {
            (Command::Transact { params, count, reply }, Phase::Ready) => {
                let deadline = Instant::now() + self.options.transact_timeout;
                self.request("transact", params, Pending::Transact { count, deadline, reply });
            }
            (command @ Command::Transact { .. }, _) | (command, Phase::Choosing) => {
                self.link.refuse(command, self.options.database);
            }
            (Command::Resynchronize, Phase::Loading | Phase::Ready) => {
                let old = json!([self.monitor_id()]);
                self.request("monitor_cancel", old, Pending::Cancel);
                self.link.last = None;
                self.load();
            }
        }
    }

    fn tell(&self, event: Event) {
        // A dropped receiver ends the session in `follow`.
        let _ = self.link.events.send(event);
    }

    /// The connection is over: what was sent may or may not have been executed.
    fn lose(&mut self, reason: &ConnectionError) {
        let database = self.options.database.name;
        for pending in std::mem::take(&mut self.pending).into_values() {
            if let Pending::Transact { reply, .. } = pending {
                let reason = reason.to_string();
                let _ = reply.send(Err(OvsdbError::Lost { database, reason }));
            }
        }
    }

    // --- the server's side -------------------------------------------------------------------

    fn receive(&mut self, message: &[u8]) -> Step {
        let envelope: Envelope =
            serde_json::from_slice(message).map_err(|e| self.protocol(format!("bad JSON: {e}")))?;
        match envelope.method.as_deref() {
            None => self.receive_reply(&envelope),
            Some("echo") => {
                if let Some(id) = envelope.id {
                    let params = envelope.params.map_or("[]", RawValue::get);
                    let reply = format!(r#"{{"result":{params},"error":null,"id":{}}}"#, id.get());
                    self.writer.send(reply);
                }
                Ok(())
            }
            Some("update2" | "update3") => self.receive_update(envelope.params),
            Some("monitor_canceled") => Err(self.protocol("the database was removed or converted")),
            // RFC 7047 has no other notification that concerns a client without locks.
            Some(_) => Ok(()),
        }
    }

    fn receive_update(&mut self, params: Option<&RawValue>) -> Step {
        let text = params.map_or("[]", RawValue::get);
        let params: Vec<&RawValue> =
            serde_json::from_str(text).map_err(|e| self.protocol(format!("bad update: {e}")))?;
        let (monitor, transaction, tables) = match params.as_slice() {
            [monitor, tables] => (monitor, None, tables),
            [monitor, transaction, tables] => (monitor, Some(transaction), tables),
            _ => return Err(self.protocol("an update without content")),
        };
        let monitor: String = serde_json::from_str(monitor.get()).unwrap_or_default();
        let transaction = transaction.and_then(|t| parse_transaction(t.get()));
        let tables = (*tables).to_owned().into();
        let update = Update { scope: Scope::Delta, tables, transaction };
        if monitor == SERVERS {
            return self.observe_servers(&update);
        }
        if monitor == self.monitor_id() && self.phase == Phase::Ready {
            self.link.last = update.transaction;
            self.tell(Event::Updated(update));
        }
        Ok(())
    }

    fn receive_reply(&mut self, envelope: &Envelope) -> Step {
        let id = envelope.id.and_then(|id| id.get().parse::<u64>().ok());
        let Some(pending) = id.and_then(|id| self.pending.remove(&id)) else {
            return Err(self.protocol("an answer to nothing"));
        };
        let result = match (envelope.result, envelope.error) {
            (Some(result), None) => Ok(result),
            (_, error) => Err(error.map_or("no result", RawValue::get)),
        };
        match pending {
            Pending::Echo | Pending::Cancel => Ok(()),
            Pending::Transact { count, reply, .. } => self.answer(result, count, reply),
            Pending::Servers => {
                let tables = result.map_err(|e| self.protocol(e))?.to_owned().into();
                let scope = Scope::Snapshot;
                self.observe_servers(&Update { scope, tables, transaction: None })
            }
            Pending::Monitor => {
                let result = result.map_err(|e| self.protocol(format!("cannot monitor: {e}")))?;
                self.receive_content(result)
            }
        }
    }

    fn answer(&self, result: Result<&RawValue, &str>, count: usize, reply: TransactReply) -> Step {
        let database = self.options.database.name;
        let answer = match result {
            Ok(result) => serde_json::from_str(result.get())
                .map_err(|e| e.to_string())
                .and_then(|value| Outcome::parse(&value, count).map_err(|e| e.to_string())),
            Err(error) => Ok(Err(refuse_whole(error))),
        };
        match answer {
            Ok(outcome) => {
                let refused = |refusal| OvsdbError::Refused { database, refusal };
                let _ = reply.send(outcome.map_err(refused));
                Ok(())
            }
            Err(reason) => {
                let error = OvsdbError::Lost { database, reason: reason.clone() };
                let _ = reply.send(Err(error));
                Err(self.protocol(reason))
            }
        }
    }

    /// `[found, last transaction, table updates]`. `found`: the updates are what happened since
    /// the transaction that the request named.
    fn receive_content(&mut self, result: &RawValue) -> Step {
        let (found, transaction, tables): (bool, &RawValue, &RawValue) =
            serde_json::from_str(result.get())
                .map_err(|e| self.protocol(format!("bad monitor reply: {e}")))?;
        let update = Update {
            scope: if found { Scope::Delta } else { Scope::Snapshot },
            tables: tables.to_owned().into(),
            transaction: parse_transaction(transaction.get()),
        };
        if self.pending.values().any(|p| matches!(p, Pending::Monitor)) {
            return Ok(()); // A newer snapshot is on its way.
        }
        self.link.last = update.transaction;
        if self.phase == Phase::Ready {
            self.tell(Event::Updated(update));
        } else {
            self.phase = Phase::Ready;
            self.tell(Event::Connected { endpoint: self.endpoint.clone(), update });
        }
        Ok(())
    }

    fn observe_servers(&mut self, update: &Update) -> Step {
        self.servers.apply(update).map_err(|e| self.protocol(e))?;
        let name = self.options.database.name;
        let row = self.servers.by_name(&server::DATABASE_TABLE, name);
        if let Err(reason) = check_server(row, self.options.leader_only) {
            return Err(ConnectionError::Unsuitable { endpoint: self.endpoint.clone(), reason });
        }
        if self.phase == Phase::Choosing {
            self.phase = Phase::Loading;
            self.load();
        }
        Ok(())
    }

    fn monitor_id(&self) -> String {
        format!("content-{}", self.monitor)
    }

    fn load(&mut self) {
        self.monitor += 1;
        let tables: Map<String, Value> = self
            .options
            .monitored
            .iter()
            .map(|(table, columns)| monitored(table, columns))
            .collect();
        let since = transaction_text(self.link.last);
        let params = json!([self.options.database.name, self.monitor_id(), tables, since]);
        self.request("monitor_cond_since", params, Pending::Monitor);
    }
}

/// The answer to a dial that is under way; none comes while there is no such dial.
async fn answered(dialling: &mut Option<BoxFuture<'static, Answer>>) -> Answer {
    let Some(dial) = dialling else { return std::future::pending().await };
    let answer = dial.await;
    *dialling = None;
    answer
}

fn names(columns: &[Column]) -> Vec<&'static str> {
    columns.iter().map(|c| c.name()).collect()
}

fn monitored(table: &Table, columns: &[Column]) -> (String, Value) {
    (table.name.to_owned(), json!([{"columns": names(columns)}]))
}

/// A transaction id; a standalone database sends zeros, which can not be resumed from.
fn parse_transaction(raw: &str) -> Option<Uuid> {
    let text: String = serde_json::from_str(raw).ok()?;
    text.parse().ok().filter(|u| *u != Uuid::default())
}

/// The error of a request that was refused before any operation ran: an object, or a text.
fn refuse_whole(error: &str) -> Refusal {
    let value: Value = serde_json::from_str(error).unwrap_or_default();
    Refusal::parse(&value, None).unwrap_or_else(|| Refusal {
        error: value.as_str().unwrap_or(error).to_owned(),
        details: String::new(),
        index: None,
    })
}

fn check_server(row: Option<&Row>, leader_only: LeaderOnly) -> Result<(), Unsuitable> {
    let row = row.ok_or(Unsuitable::NoDatabase)?;
    let is_set = |column| row.get(column) == Some(&Datum::one(Atom::Boolean(true)));
    if row.text(server::database::MODEL).is_some_and(|m| &**m == "standalone") {
        return Ok(());
    }
    if !is_set(server::database::CONNECTED) {
        return Err(Unsuitable::Disconnected);
    }
    if leader_only == LeaderOnly::Yes && !is_set(server::database::LEADER) {
        return Err(Unsuitable::NotLeader);
    }
    Ok(())
}
