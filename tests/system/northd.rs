//! Verdicts of OVN itself: our northbound rows in a real ovsdb-server, translated by a real
//! ovn-northd, judged by ovn-trace.

use std::{
    collections::BTreeSet,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use kube_ovn::{
    api::Kind,
    controller::commit::monitored,
    ovn::FEATURES,
    ovsdb::{
        client::{Client, Event, Options},
        endpoint::Endpoint,
        replica::Replica,
        row::RowKey,
        schema::{nb, sb},
    },
    plan::{Cause, Engine, Touch, diff},
    store::{Owner, Store, Stored},
};
use tokio::{runtime::Runtime, sync::mpsc::UnboundedReceiver, time::timeout};

use crate::{
    ovsdb_server::{Folder, OvsdbServer, ovn_run, run},
    support::cluster::full_batch,
};

/// A packet from a pod, as ovn-trace writes it.
pub struct Packet {
    /// Logical port that it leaves.
    pub from: &'static str,
    pub switch: &'static str,
    /// `ip4.src == ... && tcp.dst == 80`, with Ethernet addresses.
    pub fields: String,
}

pub struct Northd {
    nb: OvsdbServer,
    sb: OvsdbServer,
    northd: Child,
    runtime: Runtime,
    client: Client,
    events: UnboundedReceiver<Event>,
    replica: Replica,
    _folder: Folder,
}

impl Northd {
    pub fn start() -> Self {
        let (nb, sb) =
            (OvsdbServer::standalone(&nb::DATABASE), OvsdbServer::standalone(&sb::DATABASE));
        let folder = Folder::new();
        let mut command = ovn_run("ovn-northd");
        command
            .arg(format!("--ovnnb-db={}", nb.endpoint()))
            .arg(format!("--ovnsb-db={}", sb.endpoint()))
            .arg(format!("--unixctl={}", folder.0.join("northd.ctl").display()))
            .args(["--no-chdir", "-vconsole:off", "-vsyslog:off"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let northd = command.spawn().unwrap();
        run(nbctl(&nb.endpoint(), &["init"]));
        let runtime = Runtime::new().unwrap();
        let options =
            Options { monitored: monitored(), ..Options::new(&nb::DATABASE, vec![nb.endpoint()]) };
        let (client, events) = {
            let _inside = runtime.enter();
            Client::connect(options)
        };
        let replica = Replica::new(&nb::DATABASE, &monitored());
        let mut all = Northd { nb, sb, northd, runtime, client, events, replica, _folder: folder };
        while all.replica.singleton(&nb::NB_GLOBAL).is_none() {
            all.take_in(Duration::from_secs(30));
        }
        all
    }

    /// Takes in the next event of the database, if one comes in time, and all that wait.
    fn take_in(&mut self, patience: Duration) {
        let (runtime, events) = (&self.runtime, &mut self.events);
        let mut next =
            runtime.block_on(async { timeout(patience, events.recv()).await.ok().flatten() });
        while let Some(event) = next {
            if let Event::Connected { update, .. } | Event::Updated(update) = &event {
                self.replica.apply(update).unwrap();
            }
            next = self.events.try_recv().ok();
        }
    }

    /// Makes the database what follows from the objects, and waits for northd.
    pub fn set(&mut self, objects: impl IntoIterator<Item = Arc<dyn Stored>>) {
        let mut store = Store::default();
        for object in objects {
            store.upsert(object);
        }
        let engine = Engine::from_store(FEATURES, &store);
        for _ in 0..20 {
            self.take_in(Duration::from_millis(1));
            let mut batch = full_batch(&engine);
            let rows = nb::DATABASE.tables.iter().flat_map(|t| self.replica.rows(t));
            let unwanted = rows.filter_map(|row| {
                let key = RowKey { table: row.table(), id: row.id()?.clone() };
                engine.desired().row(&key).is_none().then_some(Touch::Row(key))
            });
            let orphans = Owner { feature: "orphan", kind: Kind::Settings, key: "".into() };
            batch.owners.push((orphans, Cause::Changed, unwanted.collect::<BTreeSet<_>>()));
            let plan = diff::plan(engine.desired(), &self.replica, &batch);
            if plan.is_empty() {
                run(nbctl(&self.nb.endpoint(), &["--wait=sb", "sync"]));
                return;
            }
            self.runtime.block_on(self.client.transact(&plan.transaction)).unwrap();
        }
        panic!("the database does not become what is wanted");
    }

    /// Where ovn-trace reads.
    pub fn southbound(&self) -> Endpoint {
        self.sb.endpoint()
    }

    pub fn router_mac(&self, port: &str) -> String {
        let columns = ["get", "Logical_Router_Port", port, "mac"];
        let output = nbctl(&self.nb.endpoint(), &columns).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().trim_matches('"').to_owned()
    }

    /// What ovn-trace says about a packet of a new connection.
    pub fn trace(&self, packet: &Packet) -> String {
        let mut command = ovn_run("ovn-trace");
        command
            .arg(format!("--db={}", self.sb.endpoint()))
            .args(["--ct=new"; 8])
            .arg(packet.switch)
            .arg(format!("inport == {:?} && {}", packet.from, packet.fields));
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        // It warns of every flow that it cannot parse.
        let parsed = output.status.success() && !text.is_empty() && !errors.contains("WARN");
        assert!(parsed, "{command:?}: {text}{errors}");
        text
    }

    /// What a program that asks a database prints.
    pub fn ask(&self, program: &str, args: &[&str]) -> String {
        let database = if program == "ovn-nbctl" { &self.nb } else { &self.sb };
        let mut command = ovn_run(program);
        let output = command.arg(format!("--db={}", database.endpoint())).args(args).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Whether the packet comes out at the port.
    pub fn reaches(&self, packet: &Packet, port: &str) -> bool {
        self.trace(packet).contains(&format!("/* output to {port:?}"))
    }
}

impl Drop for Northd {
    fn drop(&mut self) {
        let _ = self.northd.kill();
        let _ = self.northd.wait();
    }
}

fn nbctl(endpoint: &Endpoint, args: &[&str]) -> Command {
    let mut command = ovn_run("ovn-nbctl");
    command.arg(format!("--db={endpoint}")).arg("--timeout=30").args(args);
    command
}
