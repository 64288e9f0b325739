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
    fn facets(&self) -> Vec<(Index, Text, Text)>;
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
    fn facets(&self) -> Vec<(Index, Text, Text)> {
        Object::facets(self)
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
    /// Values and how many objects have them.
    facets: HashMap<(Index, Text), BTreeMap<Text, usize>>,
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

    /// Buckets of facets that gained or lost a value.
    fn recount(&mut self, old: &[Facet], new: &[Facet]) -> Vec<Bucket> {
        let mut changed = Vec::new();
        for (index, bucket, value) in new.iter().filter(|f| !old.contains(f)) {
            let place = (*index, bucket.clone());
            let count = self.facets.entry(place.clone()).or_default().entry(value.clone());
            let count = count.or_default();
            *count += 1;
            if *count == 1 {
                changed.push(place);
            }
        }
        for (index, bucket, value) in old.iter().filter(|f| !new.contains(f)) {
            let place = (*index, bucket.clone());
            let Some(values) = self.facets.get_mut(&place) else { continue };
            let Some(count) = values.get_mut(value) else { continue };
            *count -= 1;
            if *count == 0 {
                values.remove(value);
                if values.is_empty() {
                    self.facets.remove(&place);
                }
                changed.push(place);
            }
        }
        changed
    }
}

type Facet = (Index, Text, Text);
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

/// Each facet once.
fn distinct_facets(object: &dyn Stored) -> Vec<Facet> {
    let mut facets = object.facets();
    facets.sort();
    facets.dedup();
    facets
}

impl Store {
    /// Inserts or replaces. Returns what a view could have read and would now read differently;
    /// nothing when the object is equal to the stored one.
    pub fn upsert(&mut self, object: Arc<dyn Stored>) -> Vec<Read> {
        let (kind, key) = (object.kind(), object.key());
        let table = self.tables.entry(kind).or_default();
        let old = match table.objects.get(&key) {
            Some(old) if old.same_as(&*object) => return Vec::new(),
            Some(old) => (with_all(&**old), distinct_facets(&**old)),
            None => (Vec::new(), Vec::new()),
        };
        let new = (with_all(&*object), distinct_facets(&*object));
        table.objects.insert(key.clone(), object);
        let mut changed = table.reindex(&key, &old.0, &new.0);
        changed.extend(table.recount(&old.1, &new.1));
        reads(kind, &key, changed)
    }

    /// Removes; returns what would now be read differently.
    pub fn remove(&mut self, kind: Kind, key: &str) -> Vec<Read> {
        let Some(table) = self.tables.get_mut(&kind) else { return Vec::new() };
        let Some((key, old)) = table.objects.remove_entry(key) else { return Vec::new() };
        let mut changed = table.reindex(&key, &with_all(&*old), &[]);
        changed.extend(table.recount(&distinct_facets(&*old), &[]));
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

    /// Values of a facet, each once, in order.
    pub fn facet(&self, kind: Kind, index: Index, bucket: &str) -> impl Iterator<Item = &Text> {
        let values = self.tables.get(&kind).and_then(|t| t.facets.get(&(index, bucket.into())));
        values.into_iter().flat_map(|values| values.keys())
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
