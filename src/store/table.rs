use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::api::{Index, Kind, Object, Text};

use super::Read;

/// An [`Object`] with its type erased, so that one channel carries all kinds.
pub trait Stored: Any + Send + Sync + std::fmt::Debug {
    fn kind(&self) -> Kind;
    fn key(&self) -> Text;
    fn buckets(&self) -> Vec<(Index, Text)>;
    fn same_as(&self, other: &dyn Stored) -> bool;
    fn as_any(&self) -> &dyn Any;
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<T: Object> Stored for T {
    fn kind(&self) -> Kind {
        T::KIND
    }
    fn key(&self) -> Text {
        Object::key(self)
    }
    fn buckets(&self) -> Vec<(Index, Text)> {
        Object::buckets(self)
    }
    fn same_as(&self, other: &dyn Stored) -> bool {
        other.as_any().downcast_ref::<T>().is_some_and(|o| o == self)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

#[derive(Debug, Default)]
struct Table {
    objects: BTreeMap<Text, Arc<dyn Stored>>,
    buckets: HashMap<(Index, Text), BTreeSet<Text>>,
}

impl Table {
    /// Bucket membership changes between two versions of an object.
    fn reindex(&mut self, key: &Text, old: &[(Index, Text)], new: &[(Index, Text)]) -> Vec<Bucket> {
        let mut changed = Vec::new();
        for bucket in old.iter().filter(|b| !new.contains(b)) {
            if let Some(keys) = self.buckets.get_mut(bucket) {
                keys.remove(key);
                if keys.is_empty() {
                    self.buckets.remove(bucket);
                }
            }
            changed.push(bucket.clone());
        }
        for bucket in new.iter().filter(|b| !old.contains(b)) {
            self.buckets.entry(bucket.clone()).or_default().insert(key.clone());
            changed.push(bucket.clone());
        }
        changed
    }
}

type Bucket = (Index, Text);

/// All objects, by kind. Cloning is cheap in objects (they are shared) and is used by the oracle.
#[derive(Debug, Default)]
pub struct Store {
    tables: BTreeMap<Kind, Table>,
}

fn with_all(object: &dyn Stored) -> Vec<Bucket> {
    let mut buckets = object.buckets();
    buckets.push((Index::All, "".into()));
    buckets
}

impl Store {
    /// Inserts or replaces. Returns what a view could have read and would now read differently;
    /// nothing when the object is equal to the stored one.
    pub fn upsert(&mut self, object: Arc<dyn Stored>) -> Vec<Read> {
        let (kind, key) = (object.kind(), object.key());
        let table = self.tables.entry(kind).or_default();
        let old = match table.objects.get(&key) {
            Some(old) if old.same_as(&*object) => return Vec::new(),
            Some(old) => with_all(&**old),
            None => Vec::new(),
        };
        let new = with_all(&*object);
        table.objects.insert(key.clone(), object);
        reads(kind, &key, table.reindex(&key, &old, &new))
    }

    /// Removes; returns what would now be read differently.
    pub fn remove(&mut self, kind: Kind, key: &str) -> Vec<Read> {
        let Some(table) = self.tables.get_mut(&kind) else { return Vec::new() };
        let Some((key, old)) = table.objects.remove_entry(key) else { return Vec::new() };
        let changed = table.reindex(&key, &with_all(&*old), &[]);
        reads(kind, &key, changed)
    }

    pub fn get<T: Object>(&self, key: &str) -> Option<&T> {
        self.stored(T::KIND, key)?.as_any().downcast_ref()
    }

    /// The shared value, for code that keeps it.
    pub fn shared<T: Object>(&self, key: &str) -> Option<Arc<T>> {
        Arc::clone(self.stored(T::KIND, key)?).into_any().downcast().ok()
    }

    pub fn stored(&self, kind: Kind, key: &str) -> Option<&Arc<dyn Stored>> {
        self.tables.get(&kind)?.objects.get(key)
    }

    pub fn contains(&self, kind: Kind, key: &str) -> bool {
        self.stored(kind, key).is_some()
    }

    pub fn keys(&self, kind: Kind) -> impl Iterator<Item = &Text> {
        self.tables.get(&kind).into_iter().flat_map(|t| t.objects.keys())
    }

    pub fn iter<T: Object>(&self) -> impl Iterator<Item = &T> {
        let table = self.tables.get(&T::KIND);
        table.into_iter().flat_map(|t| t.objects.values()).filter_map(|o| o.as_any().downcast_ref())
    }

    /// Keys of the objects in a bucket, in order.
    pub fn bucket(&self, kind: Kind, index: Index, value: &str) -> Option<&BTreeSet<Text>> {
        self.tables.get(&kind)?.buckets.get(&(index, value.into()))
    }

    pub fn len(&self, kind: Kind) -> usize {
        self.tables.get(&kind).map_or(0, |t| t.objects.len())
    }

    pub fn is_empty(&self, kind: Kind) -> bool {
        self.len(kind) == 0
    }
}

fn reads(kind: Kind, key: &Text, buckets: Vec<Bucket>) -> Vec<Read> {
    let mut all = vec![Read::Object(kind, key.clone())];
    all.extend(buckets.into_iter().map(|(index, value)| Read::Bucket(kind, index, value)));
    all
}
