//! The OVSDB client against the ovsdb-server of OVN 25.03.

use std::{collections::BTreeMap, time::Duration};

use kube_ovn::ovsdb::{
    client::{Client, Event, LeaderOnly, Options, OvsdbError},
    datum::{Datum, Uuid},
    endpoint::Endpoint,
    replica::{Change, Replica, Row, Scope},
    schema::{Column, Table, nb},
    transaction::{Cell, Condition, Item, Mutation, NamedUuid, Operation, Target, Transaction},
    wire::{ConnectionError, Unsuitable},
};
use nb::{logical_switch as ls, logical_switch_port as lsp, nb_global as global};
use tokio::{
    net::{TcpSocket, TcpStream, UnixStream},
    sync::mpsc::UnboundedReceiver,
    time::timeout,
};

use crate::ovsdb_server::{Cluster, OvsdbServer};

pub const MONITORED: &[(&Table, &[Column])] = &[
    (&nb::NB_GLOBAL, &[global::NAME, global::EXTERNAL_IDS, global::OPTIONS, global::NB_CFG]),
    (&nb::LOGICAL_SWITCH, &[ls::NAME, ls::PORTS, ls::EXTERNAL_IDS]),
    (
        &nb::LOGICAL_SWITCH_PORT,
        &[lsp::NAME, lsp::ADDRESSES, lsp::EXTERNAL_IDS, lsp::TAG, lsp::UP, lsp::TYPE],
    ),
];

/// A client with its replica, as a loop of the product holds them.
pub struct Owner {
    pub client: Client,
    pub events: UnboundedReceiver<Event>,
    pub replica: Replica,
}

impl Owner {
    pub fn new(mut options: Options) -> Self {
        let replica = Replica::new(options.database, MONITORED);
        options.monitored = MONITORED.to_vec();
        let (client, events) = Client::connect(options);
        Owner { client, events, replica }
    }

    pub async fn event(&mut self) -> Event {
        timeout(Duration::from_secs(30), self.events.recv()).await.expect("an event").unwrap()
    }

    /// Waits for a connection and gives the scope of what came with it.
    pub async fn connected(&mut self) -> Scope {
        let end = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            match self.event().await {
                Event::Connected { update, .. } => {
                    self.replica.apply(&update).unwrap();
                    return update.scope;
                }
                Event::Disconnected { reason } => {
                    assert!(tokio::time::Instant::now() < end, "{reason}");
                }
                Event::Updated(_) => {}
            }
        }
    }

    /// Applies what is in the channel now.
    pub fn drain(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Updated(update) | Event::Connected { update, .. } => {
                    changes.extend(self.replica.apply(&update).unwrap());
                }
                Event::Disconnected { reason } => panic!("{reason}"),
            }
        }
        changes
    }

    pub async fn transact(&self, operations: Vec<Operation>) -> Result<Vec<Uuid>, OvsdbError> {
        let count = operations.len();
        let outcome = self.client.transact(&Transaction { operations }).await?;
        Ok((0..count).filter_map(|i| outcome.inserted(i)).collect())
    }

    pub async fn global(&self) -> Result<Vec<Uuid>, OvsdbError> {
        let row = BTreeMap::from([(global::NAME, Cell::one("test"))]);
        self.transact(vec![Operation::Insert { table: &nb::NB_GLOBAL, named: None, row }]).await
    }

    /// Every row of the monitored tables, to compare two replicas.
    pub fn content(&self) -> BTreeMap<Uuid, Row> {
        MONITORED
            .iter()
            .flat_map(|(t, _)| self.replica.rows(t))
            .map(|r| (r.uuid, r.clone()))
            .collect()
    }
}

pub fn options(server: &OvsdbServer) -> Options {
    Options::new(&nb::DATABASE, vec![server.endpoint()])
}

fn port(n: usize, row: usize) -> Operation {
    let row_id = NamedUuid::numbered(row);
    let id = format!("pod:default/p{n}:eth0");
    let row = BTreeMap::from([
        (lsp::NAME, Cell::one(format!("p{n}.default"))),
        (
            lsp::ADDRESSES,
            Cell::one(format!(
                "00:00:00:00:{:02x}:{:02x} 10.16.{}.{}",
                n >> 8,
                n & 255,
                n >> 8,
                n & 255
            )),
        ),
        (
            lsp::EXTERNAL_IDS,
            Cell::map([
                ("kube-ovn/id", id.as_str()),
                ("vendor", "kube-ovn"),
                ("ls", "ovn-default"),
            ]),
        ),
    ]);
    Operation::Insert { table: &nb::LOGICAL_SWITCH_PORT, named: Some(row_id), row }
}

/// Ports and the mutation that puts them into the switch.
fn ports(switch: Uuid, numbers: std::ops::Range<usize>) -> Vec<Operation> {
    let references: Vec<Item> =
        (0..numbers.len()).map(|n| Item::Reference(NamedUuid::numbered(n))).collect();
    let mut operations: Vec<_> = numbers.enumerate().map(|(row, n)| port(n, row)).collect();
    operations.push(Operation::Mutate {
        table: &nb::LOGICAL_SWITCH,
        target: switch.into(),
        mutations: vec![Mutation::insert(ls::PORTS, Cell::set(references))],
    });
    operations
}

fn switch(name: &str) -> Vec<Operation> {
    let row = BTreeMap::from([(ls::NAME, Cell::one(name))]);
    vec![Operation::Insert { table: &nb::LOGICAL_SWITCH, named: None, row }]
}

fn epoch(n: u32) -> Datum {
    Datum::Map([("kube-ovn/epoch".into(), n.to_string().into())].into())
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn updates_are_there_before_the_transaction_returns() {
    let server = OvsdbServer::standalone(&nb::DATABASE);
    let mut owner = Owner::new(options(&server));
    assert_eq!(owner.connected().await, Scope::Snapshot);
    for n in 0..50 {
        let made = owner.transact(switch(&format!("s{n}"))).await.unwrap();
        let changes = owner.drain();
        assert_eq!(changes.iter().map(|c| c.uuid).collect::<Vec<_>>(), made);
        assert_eq!(
            owner.replica.by_name(&nb::LOGICAL_SWITCH, &format!("s{n}")).unwrap().uuid,
            made[0]
        );
    }
}

/// Another client answered 0 of 50.
#[tokio::test]
async fn fifty_transactions_in_flight_are_all_answered_in_order() {
    let server = OvsdbServer::standalone(&nb::DATABASE);
    let mut owner = Owner::new(options(&server));
    owner.connected().await;
    let names: Vec<String> = (0..50).map(|n| format!("s{n} \\\"}} é")).collect();
    let all = names.iter().map(|name| owner.transact(switch(name)));
    let made: Vec<Uuid> = futures::future::try_join_all(all).await.unwrap().concat();
    owner.drain();
    for (name, uuid) in names.iter().zip(made) {
        assert_eq!(owner.replica.by_name(&nb::LOGICAL_SWITCH, name).unwrap().uuid, uuid);
    }
}

#[tokio::test]
async fn twenty_thousand_ports_and_their_changes_equal_a_full_read() {
    let server = OvsdbServer::standalone(&nb::DATABASE);
    let mut writer = Owner::new(options(&server));
    writer.connected().await;
    let switch = writer.transact(switch("ovn-default")).await.unwrap()[0];
    for batch in 0..40 {
        writer.transact(ports(switch, batch * 500..(batch + 1) * 500)).await.unwrap();
    }
    writer.drain();
    assert_eq!(writer.replica.len(&nb::LOGICAL_SWITCH_PORT), 20_000);

    let before = resident_kib();
    let started = std::time::Instant::now();
    let mut reader = Owner::new(options(&server));
    reader.connected().await;
    let took = started.elapsed();
    println!(
        "20k ports: read in {took:?}, {} KiB more resident",
        resident_kib().saturating_sub(before)
    );
    assert_eq!(reader.content(), writer.content());

    // Changes of every kind: sets, maps, optional scalars, deletion by loss of the reference.
    let uuid = |n: usize| {
        let id = format!("pod:default/p{n}:eth0");
        reader.replica.by_id(&nb::LOGICAL_SWITCH_PORT, &id).unwrap().uuid
    };
    let mutate = |n, mutations| Operation::Mutate {
        table: &nb::LOGICAL_SWITCH_PORT,
        target: uuid(n).into(),
        mutations,
    };
    let update = |n, column, cell| Operation::Update {
        table: &nb::LOGICAL_SWITCH_PORT,
        target: uuid(n).into(),
        row: BTreeMap::from([(column, cell)]),
    };
    let operations = vec![
        mutate(1, vec![Mutation::insert(lsp::ADDRESSES, Cell::one("unknown"))]),
        mutate(
            2,
            Mutation::put(lsp::EXTERNAL_IDS, [("ls".into(), Item::from("other"))].into()).into(),
        ),
        mutate(3, vec![Mutation::delete_keys(lsp::EXTERNAL_IDS, ["ls", "absent"])]),
        mutate(3, vec![Mutation::delete(lsp::EXTERNAL_IDS, Cell::map([("vendor", "not this")]))]),
        update(4, lsp::TAG, Cell::one(7)),
        update(5, lsp::UP, Cell::one(true)),
        update(6, lsp::ADDRESSES, Cell::set::<Item>([])),
        Operation::Mutate {
            table: &nb::LOGICAL_SWITCH,
            target: switch.into(),
            mutations: vec![Mutation::delete(ls::PORTS, Cell::set([uuid(7), uuid(8)]))],
        },
        update(4, lsp::TYPE, Cell::one("localnet")),
    ];
    writer.transact(operations.clone()).await.unwrap();
    writer
        .transact(vec![
            update(4, lsp::TAG, Cell::one(8)),
            update(5, lsp::UP, Cell::set::<Item>([])),
        ])
        .await
        .unwrap();
    writer.drain();
    reader.transact(vec![Operation::Comment("flushes the updates before".into())]).await.unwrap();
    let changed = reader.drain();
    assert!(changed.len() >= 9, "{changed:?}");
    assert_eq!(reader.content(), writer.content());
    assert_eq!(reader.replica.len(&nb::LOGICAL_SWITCH_PORT), 19_998);
    let mut fresh = Owner::new(options(&server));
    fresh.connected().await;
    assert_eq!(reader.content(), fresh.content());

    reader.client.resynchronize();
    let Event::Updated(update) = reader.event().await else { panic!("no snapshot") };
    assert_eq!(update.scope, Scope::Snapshot);
    assert_eq!(reader.replica.apply(&update).unwrap().len(), 0);
}

#[tokio::test]
async fn a_killed_server_is_found_again_and_only_differences_are_reported() {
    let mut server = OvsdbServer::standalone(&nb::DATABASE);
    let mut owner = Owner::new(options(&server));
    owner.connected().await;
    owner.transact(switch("a")).await.unwrap();
    owner.drain();
    server.kill();
    let Event::Disconnected { .. } = owner.event().await else { panic!("still connected") };
    assert!(matches!(owner.transact(switch("x")).await, Err(OvsdbError::NotConnected { .. })));
    server.restart();
    let mut other = Owner::new(options(&server));
    other.connected().await;
    other.transact(switch("b")).await.unwrap();
    assert_eq!(owner.connected().await, Scope::Snapshot, "a standalone database cannot resume");
    owner.transact(switch("c")).await.unwrap();
    owner.drain();
    let mut names: Vec<_> = owner
        .replica
        .rows(&nb::LOGICAL_SWITCH)
        .map(|r| r.text(ls::NAME).unwrap().to_string())
        .collect();
    names.sort();
    assert_eq!(names, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_stopped_server_is_noticed_by_the_probe() {
    let server = OvsdbServer::standalone(&nb::DATABASE);
    let probe = Duration::from_millis(300);
    let mut owner = Owner::new(Options { probe, connect_timeout: probe, ..options(&server) });
    owner.connected().await;
    tokio::time::sleep(probe * 5).await;
    assert!(owner.drain().is_empty(), "an idle server answers the probe");
    let pid = nix::unistd::Pid::from_raw(server.pid() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let lost = owner.transact(switch("x")).await;
    assert!(matches!(lost, Err(OvsdbError::Lost { .. })), "{lost:?}");
    let Event::Disconnected { reason } = owner.event().await else { panic!("still connected") };
    assert!(matches!(reason, ConnectionError::Silent { .. }), "{reason}");
    let Event::Disconnected { reason } = owner.event().await else { panic!("connected") };
    assert!(matches!(reason, ConnectionError::ConnectTimeout { .. }), "{reason}");
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    owner.connected().await;
}

#[tokio::test]
async fn a_transaction_without_an_answer_ends_the_connection() {
    let server = OvsdbServer::standalone(&nb::DATABASE);
    let limit = Duration::from_millis(300);
    let options = Options { transact_timeout: limit, connect_timeout: limit, ..options(&server) };
    let mut owner = Owner::new(options);
    owner.connected().await;
    let pid = nix::unistd::Pid::from_raw(server.pid() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let lost = owner.transact(switch("x")).await;
    assert!(matches!(lost, Err(OvsdbError::Lost { .. })), "{lost:?}");
    let Event::Disconnected { reason } = owner.event().await else { panic!("still connected") };
    assert!(matches!(reason, ConnectionError::NoAnswer { .. }), "{reason}");
}

/// Its connections stand and say nothing, and it takes no new ones: so does a busy server, but its
/// kernel answers those who dial.
#[tokio::test]
async fn a_host_without_power_is_left_for_another_long_before_the_probe() {
    let servers = [1, 2].map(|_| OvsdbServer::standalone(&nb::DATABASE));
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let dying = Endpoint::Tcp { host: address.ip().to_string(), port: address.port() };
    let endpoints = vec![dying, servers[1].endpoint()];
    let mut owner = Owner::new(Options { endpoints, ..options(&servers[0]) });
    let (mut near, _) = listener.accept().await.unwrap();
    let Endpoint::Unix(path) = servers[0].endpoint() else { panic!() };
    let mut far = UnixStream::connect(path).await.unwrap();
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => panic!("closed"),
        _ = owner.connected() => {}
    }
    // From here on nobody carries its words.
    let mut waiting = Vec::new();
    let limit = Duration::from_millis(300);
    while let Ok(Ok(stream)) = timeout(limit, TcpStream::connect(address)).await {
        waiting.push(stream);
        assert!(waiting.len() < 100, "the queue takes them all");
    }
    let Event::Disconnected { reason } = owner.event().await else { panic!("still connected") };
    assert!(matches!(reason, ConnectionError::HostSilent { .. }), "{reason}");
    owner.connected().await;
}

/// Another client panicked at the server's first echo.
#[tokio::test]
async fn the_servers_probe_is_answered() {
    let server = OvsdbServer::standalone(&nb::DATABASE);
    let mut owner = Owner::new(Options { probe: Duration::ZERO, ..options(&server) });
    owner.connected().await;
    // The server asks after 5 s of silence and gives up 5 s later.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(owner.drain().is_empty());
    owner.transact(switch("x")).await.unwrap();
}

#[tokio::test]
async fn refusals_are_told_from_losses_and_nothing_of_them_is_executed() {
    let server = OvsdbServer::standalone(&nb::DATABASE);
    let mut owner = Owner::new(options(&server));
    owner.connected().await;
    let made = owner.transact(switch("s")).await.unwrap()[0];
    owner.transact(ports(made, 0..1)).await.unwrap();
    owner.drain();

    let refused = |result: Result<Vec<Uuid>, OvsdbError>| match result {
        Err(OvsdbError::Refused { refusal, .. }) => (refusal.error, refusal.index),
        other => panic!("{other:?}"),
    };
    // A second port of the same name: found at the commit.
    let mut twice = switch("not there");
    twice.extend(ports(made, 0..1));
    assert_eq!(refused(owner.transact(twice).await), ("constraint violation".into(), None));
    // A value outside its range: found at its operation.
    let tag = Operation::Update {
        table: &nb::LOGICAL_SWITCH_PORT,
        target: Target::Where(vec![]),
        row: BTreeMap::from([(lsp::TAG, Cell::one(5000))]),
    };
    let (error, index) = refused(owner.transact(vec![Operation::Comment("c".into()), tag]).await);
    assert_eq!((error.as_str(), index), ("constraint violation", Some(1)));
    // A reference to nothing.
    let dangling = Operation::Mutate {
        table: &nb::LOGICAL_SWITCH,
        target: made.into(),
        mutations: vec![Mutation::insert(ls::PORTS, Cell::one(Uuid(1)))],
    };
    assert_eq!(refused(owner.transact(vec![dangling]).await).0, "referential integrity violation");
    assert!(owner.drain().is_empty());
    assert!(owner.replica.by_name(&nb::LOGICAL_SWITCH, "not there").is_none());
}

#[tokio::test]
async fn a_writer_of_an_old_epoch_is_refused_at_once() {
    let server = OvsdbServer::standalone(&nb::DATABASE);
    let mut owner = Owner::new(options(&server));
    owner.connected().await;
    let condition = |n| Condition::Includes(global::EXTERNAL_IDS, epoch(n));
    let wait = |n| Operation::Wait { table: &nb::NB_GLOBAL, condition: condition(n) };
    let fenced = |n| [vec![wait(n)], switch(&format!("epoch {n}"))].concat();

    let no_row = owner.transact(fenced(1)).await;
    assert!(
        matches!(no_row, Err(OvsdbError::Refused { ref refusal, .. }) if refusal.is_unmet_wait())
    );
    let row = owner.global().await.unwrap()[0];
    let set = |n: u32| Operation::Mutate {
        table: &nb::NB_GLOBAL,
        target: row.into(),
        mutations: Mutation::put(
            global::EXTERNAL_IDS,
            [("kube-ovn/epoch".into(), Item::from(n.to_string()))].into(),
        )
        .into(),
    };
    owner.transact(vec![set(1)]).await.unwrap();
    owner.transact(fenced(1)).await.unwrap();
    owner.transact(vec![wait(1), set(2)]).await.unwrap();
    let started = std::time::Instant::now();
    let old = owner.transact(fenced(1)).await;
    assert!(started.elapsed() < Duration::from_secs(2), "a wait must not wait");
    let Err(OvsdbError::Refused { refusal, .. }) = old else { panic!("{old:?}") };
    assert!(refusal.is_unmet_wait() && refusal.index == Some(0), "{refusal}");
    owner.transact(fenced(2)).await.unwrap();
    owner.drain();
    let stored = owner.replica.singleton(&nb::NB_GLOBAL).unwrap();
    assert_eq!(stored.entry(global::EXTERNAL_IDS, "kube-ovn/epoch").map(|e| &**e), Some("2"));
    assert_eq!(owner.replica.len(&nb::LOGICAL_SWITCH), 2);
}

#[tokio::test]
async fn a_client_that_monitors_nothing_can_transact() {
    let server = OvsdbServer::standalone(&nb::DATABASE);
    let (client, mut events) = Client::connect(options(&server));
    assert!(matches!(events.recv().await, Some(Event::Connected { .. })));
    client.transact(&Transaction { operations: switch("x") }).await.unwrap();
    drop(client);
    assert!(events.recv().await.is_none(), "the last handle ends the client");
}

#[tokio::test]
async fn a_server_without_the_database_is_unsuitable() {
    let server = OvsdbServer::standalone(&kube_ovn::ovsdb::schema::sb::DATABASE);
    let mut owner = Owner::new(options(&server));
    let Event::Disconnected { reason } = owner.event().await else { panic!("connected") };
    assert!(
        matches!(reason, ConnectionError::Unsuitable { reason: Unsuitable::NoDatabase, .. }),
        "{reason}"
    );
}

#[tokio::test]
async fn the_leader_is_followed_and_the_replica_resumes() {
    let mut cluster = Cluster::start(&nb::DATABASE, 3);
    let mut owner = Owner::new(Options {
        probe: Duration::from_secs(1),
        ..Options::new(&nb::DATABASE, cluster.endpoints())
    });
    assert_eq!(owner.connected().await, Scope::Snapshot);
    let switch_row = owner.transact(switch("before")).await.unwrap()[0];
    owner.transact(ports(switch_row, 0..500)).await.unwrap();
    owner.drain();

    // Each member is killed once while it leads; the others go on.
    for round in 0..3 {
        let leader = leader_of(&cluster).await;
        cluster.members[leader].kill();
        assert_eq!(owner.connected().await, Scope::Delta, "round {round}");
        owner.transact(switch(&format!("round {round}"))).await.unwrap();
        owner.drain();
        cluster.members[leader].restart();
    }
    let mut any = Owner::new(Options {
        leader_only: LeaderOnly::No,
        ..Options::new(&nb::DATABASE, vec![cluster.members[0].endpoint()])
    });
    any.connected().await;
    any.transact(vec![Operation::Comment("reads all before".into())]).await.unwrap();
    any.drain();
    assert_eq!(any.content(), owner.content());
    assert_eq!(owner.replica.len(&nb::LOGICAL_SWITCH), 4);
}

#[tokio::test]
async fn a_leader_that_steps_down_is_left() {
    let cluster = Cluster::start(&nb::DATABASE, 3);
    let mut owner = Owner::new(Options::new(&nb::DATABASE, cluster.endpoints()));
    owner.connected().await;
    let leader = leader_of(&cluster).await;
    let control = cluster.members[leader].control();
    let limit = Duration::from_secs(5);
    kube_ovn::ovsdb::unixctl::call(
        &control,
        "cluster/failure-test",
        &["transfer-leadership"],
        limit,
    )
    .await
    .unwrap();
    let Event::Disconnected { reason } = owner.event().await else { panic!("still connected") };
    assert!(
        matches!(reason, ConnectionError::Unsuitable { reason: Unsuitable::NotLeader, .. }),
        "{reason}"
    );
    owner.connected().await;
    owner.transact(switch("after")).await.unwrap();
}

async fn leader_of(cluster: &Cluster) -> usize {
    for _ in 0..300 {
        for (n, member) in cluster.members.iter().enumerate() {
            let limit = Duration::from_secs(5);
            let status = kube_ovn::ovsdb::unixctl::call(
                &member.control(),
                "cluster/status",
                &["OVN_Northbound"],
                limit,
            )
            .await;
            if status.is_ok_and(|text| text.contains("Role: leader")) {
                return n;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no leader");
}
