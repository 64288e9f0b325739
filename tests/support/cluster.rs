//! A controller without I/O: store, engine, pending touches and a database in memory.

use std::{collections::BTreeSet, sync::Arc};

use kube_ovn::{
    api::Kind,
    ovn::FEATURES,
    ovsdb::{
        replica::Replica,
        row::RowKey,
        schema::{Table, nb},
    },
    plan::{Batch, Cause, Engine, Pending, Touch, diff, touch_of},
    store::{Owner, Read, Store, Stored},
};

use super::northbound::{Server, monitored};

pub struct Cluster {
    pub store: Store,
    pub engine: Engine,
    pub pending: Pending,
    pub nb: Server,
    replica: Replica,
    /// Owners per transaction.
    pub limit: usize,
}

/// What one refresh and its commits cost.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    pub owners: usize,
    pub touches: usize,
    pub operations: usize,
    pub transactions: usize,
}

impl Default for Cluster {
    fn default() -> Self {
        Cluster {
            store: Store::default(),
            engine: Engine::new(FEATURES),
            pending: Pending::default(),
            nb: Server::new(&nb::DATABASE),
            replica: Replica::new(&nb::DATABASE, monitored(&nb::DATABASE)),
            limit: usize::MAX,
        }
    }
}

impl Cluster {
    pub fn with(objects: impl IntoIterator<Item = Arc<dyn Stored>>) -> Self {
        let mut cluster = Cluster::default();
        cluster.put_all(objects);
        cluster
    }

    /// Re-runs the readers; commits nothing.
    pub fn refresh(&mut self, reads: &[Read], cause: Cause) -> Cost {
        let refresh = self.engine.refresh(&self.store, reads.iter().map(|r| (r, cause)));
        let mut cost = Cost { owners: refresh.ran, ..Cost::default() };
        for (owner, cause, touches) in refresh.touched {
            cost.touches += touches.len();
            self.pending.add(owner, cause, touches);
        }
        cost
    }

    pub fn put(&mut self, object: Arc<dyn Stored>) -> Cost {
        self.put_all([object])
    }

    pub fn put_all(&mut self, objects: impl IntoIterator<Item = Arc<dyn Stored>>) -> Cost {
        let reads: Vec<Read> = objects.into_iter().flat_map(|o| self.store.upsert(o)).collect();
        let cost = self.refresh(&reads, Cause::Changed);
        self.commit(cost)
    }

    pub fn remove(&mut self, kind: Kind, key: &str) -> Cost {
        let reads = self.store.remove(kind, key);
        let cost = self.refresh(&reads, Cause::Deleted);
        self.commit(cost)
    }

    /// Commits batch by batch until what is left waits for rows that nobody makes.
    pub fn commit(&mut self, mut cost: Cost) -> Cost {
        let (operations, transactions) = (self.nb.operations, self.nb.transactions);
        let mut waiting = 0;
        while !self.pending.is_empty() && waiting < self.pending.len() {
            self.nb.sync(&mut self.replica);
            let batch = self.pending.take(self.limit, |_| false);
            let plan = diff::plan(self.engine.desired(), &self.replica, &batch);
            if plan.is_empty() {
                waiting += plan.deferred.len();
            } else {
                waiting = 0;
                self.nb.execute(&plan.transaction).unwrap_or_else(|e| {
                    panic!("{e}\n{:#?}\n{}", plan.transaction, self.nb.dump());
                });
            }
            for (owner, touches) in plan.deferred {
                self.pending.add(owner, Cause::Changed, touches);
            }
        }
        cost.operations += self.nb.operations - operations;
        cost.transactions += self.nb.transactions - transactions;
        cost
    }

    /// Full and incremental results are the same.
    pub fn check_oracle(&self) {
        assert_eq!(self.engine.differences(&self.store), vec![], "oracle");
    }

    /// A new process on the same database: every fact of every owner and every row of ours that
    /// nobody wants is looked at. Returns the operations that it needs.
    pub fn restart(&mut self) -> usize {
        self.engine = Engine::from_store(FEATURES, &self.store);
        self.pending = Pending::default();
        for (owner, cause, touches) in full_batch(&self.engine).owners {
            self.pending.add(owner, cause, touches);
        }
        let replica = self.nb.replica();
        for table in nb::DATABASE.tables {
            for row in replica.rows(table) {
                let Some(id) = row.id() else { continue };
                let key = RowKey { table, id: id.clone() };
                if self.engine.desired().row(&key).is_none() {
                    self.pending.add(
                        orphan(table),
                        Cause::Changed,
                        BTreeSet::from([Touch::Row(key)]),
                    );
                }
            }
        }
        self.commit(Cost::default()).operations
    }
}

fn orphan(table: &'static Table) -> Owner {
    Owner { feature: "orphan", kind: Kind::Settings, key: table.name.into() }
}

/// All facts of all owners.
pub fn full_batch(engine: &Engine) -> Batch {
    let owners = engine.owners().map(|(owner, derived)| {
        let touches = derived.facts.iter().map(touch_of).collect();
        (owner.clone(), Cause::Changed, touches)
    });
    Batch { owners: owners.collect() }
}
