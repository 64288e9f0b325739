//! Watches: raw Kubernetes objects in, validated objects out.
//!
//! One task per kind feeds one channel. A raw object is validated and trimmed at once and dropped;
//! what publishing needs of it is kept as [`Seen`]. A malformed custom resource is refused alone:
//! it is decoded by itself, so it cannot break the list of the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, pin_mut};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, ObjectMeta, TypeMeta},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{sync::mpsc, task::JoinSet};

use super::{Stored, last_valid};
use crate::api::{Invalid, Kind, Map, Object, Text};

/// Updates that may wait for the reader before the watches stop reading.
const CHANNEL: usize = 4096;

/// Between two questions whether a kind is installed by now: each attempt begins the back-off anew.
const ABSENT_PAUSE: Duration = Duration::from_secs(20);

/// What a watch reports.
#[derive(Debug, Clone)]
pub enum Update {
    Change(Change),
    /// The whole list of this kind has been sent; sent again after each relist.
    Synced(Kind),
}

/// One object that changed, or may have: equal objects are not filtered here.
#[derive(Debug, Clone)]
pub struct Change {
    pub kind: Kind,
    /// `name`, or `namespace/name`.
    pub key: Text,
    pub what: What,
}

#[derive(Debug, Clone)]
pub enum What {
    Upsert(Arc<dyn Stored>, Arc<Seen>),
    /// Exists, but is not valid.
    Refused(Refused, Arc<Seen>),
    /// Deleted before our eyes.
    Deleted,
    /// No longer there after the watch had to list anew. The fuse does not take that for the
    /// wish of a user.
    AbsentAfterRelist,
}

/// An object that is not valid, and the version that was.
#[derive(Debug, Clone, Default)]
pub struct Refused {
    pub invalid: Vec<Invalid>,
    /// As its status records it; to be used by those who never saw it themselves.
    pub last_valid: Option<Arc<dyn Stored>>,
}

impl From<Vec<Invalid>> for Refused {
    fn from(invalid: Vec<Invalid>) -> Self {
        Refused { invalid, last_valid: None }
    }
}

/// What the API server holds of an object, as far as we write it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub uid: Text,
    pub resource_version: Text,
    pub generation: i64,
    /// Of ours for built-in kinds, all for custom resources.
    pub annotations: Map,
    pub labels: Map,
    pub finalizers: Vec<Text>,
    pub deleting: bool,
    /// Custom resources only.
    pub spec: Option<Json>,
    pub status: Option<Json>,
}

impl Seen {
    /// Of a custom resource.
    pub fn of(raw: &DynamicObject) -> Self {
        let field = |name| raw.data.get(name).map(Json::from);
        Seen { spec: field("spec"), status: field("status"), ..seen(&raw.metadata, Keep::All) }
    }
}

/// JSON kept as text: a tenth of the memory of its tree, and parsed only when compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json(Box<str>);

impl Json {
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    pub fn text(&self) -> &str {
        &self.0
    }
}

impl From<&Value> for Json {
    fn from(value: &Value) -> Self {
        Json(value.to_string().into())
    }
}

/// Everything seen, kept up to date by [`SeenMap::note`].
#[derive(Debug, Clone, Default)]
pub struct SeenMap(BTreeMap<Kind, BTreeMap<Text, Arc<Seen>>>);

impl SeenMap {
    pub fn get(&self, kind: Kind, key: &str) -> Option<&Arc<Seen>> {
        self.0.get(&kind)?.get(key)
    }

    pub fn insert(&mut self, kind: Kind, key: Text, seen: Arc<Seen>) {
        self.0.entry(kind).or_default().insert(key, seen);
    }

    pub fn note(&mut self, change: &Change) {
        let objects = self.0.entry(change.kind).or_default();
        match &change.what {
            What::Upsert(_, seen) | What::Refused(_, seen) => {
                objects.insert(change.key.clone(), Arc::clone(seen));
            }
            What::Deleted | What::AbsentAfterRelist => {
                objects.remove(&change.key);
            }
        }
    }
}

/// Which objects of a kind to watch; empty = all.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    fields: Option<String>,
}

impl Scope {
    pub const ALL: Scope = Scope { fields: None };

    /// Pods that run on one node.
    pub fn pods_on(node: &str) -> Self {
        Scope { fields: Some(format!("spec.nodeName={node}")) }
    }

    /// The one object with this key, `<namespace>/<name>`.
    pub fn object(key: &str) -> Self {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        Scope { fields: Some(format!("metadata.namespace={namespace},metadata.name={name}")) }
    }

    fn config(&self) -> watcher::Config {
        match &self.fields {
            Some(fields) => whole_list().fields(fields),
            None => whole_list(),
        }
    }
}

/// A list in one answer: the API server has it in its cache (fresh by a question to etcd), whereas
/// each page is read and decoded from etcd again. 10,000 pods: 0.9 s and not 3.5 s.
fn whole_list() -> watcher::Config {
    watcher::Config { page_size: None, ..watcher::Config::default() }
}

/// The running watches; they end when this is dropped.
pub struct Watches {
    client: Client,
    sender: mpsc::Sender<Update>,
    tasks: JoinSet<()>,
}

impl Watches {
    pub fn new(client: Client) -> (Self, mpsc::Receiver<Update>) {
        let (sender, receiver) = mpsc::channel(CHANNEL);
        (Watches { client, sender, tasks: JoinSet::new() }, receiver)
    }

    /// Watches a built-in kind in all namespaces.
    pub fn core<K, T>(
        &mut self,
        scope: &Scope,
        parse: impl Fn(&K) -> Result<T, Vec<Invalid>> + Send + 'static,
    ) where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
        K::DynamicType: Default,
        T: Object,
    {
        let read = move |raw: K| (seen(raw.meta(), Keep::Ours), parse(&raw).map_err(Refused::from));
        let stream = watcher(Api::<K>::all(self.client.clone()), scope.config());
        self.spawn::<K, T>(stream, read);
    }

    /// Watches a kubeovn.io kind.
    pub fn custom<K, T>(&mut self, parse: impl Fn(&K) -> Result<T, Vec<Invalid>> + Send + 'static)
    where
        K: Resource + DeserializeOwned + 'static,
        K::DynamicType: Default,
        T: Object,
    {
        let resource = ApiResource::erase::<K>(&K::DynamicType::default());
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let read = move |raw| read_custom(raw, &parse);
        self.spawn::<DynamicObject, T>(watcher(api, whole_list()), read);
    }

    /// Watches a kind of other software, which may not be installed.
    pub fn foreign<T: Object>(
        &mut self,
        resource: &ApiResource,
        parse: impl Fn(&DynamicObject) -> T + Send + 'static,
    ) {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), resource);
        let read = move |raw: DynamicObject| {
            let object: Result<T, Refused> = Ok(parse(&raw));
            (seen(&raw.metadata, Keep::Ours), object)
        };
        self.spawn::<DynamicObject, T>(watcher(api, whole_list()), read);
    }

    fn spawn<K, T>(
        &mut self,
        stream: impl futures::Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
        read: impl Fn(K) -> (Seen, Result<T, Refused>) + Send + 'static,
    ) where
        K: ResourceExt + Send + 'static,
        T: Object,
    {
        let sender = self.sender.clone();
        self.tasks.spawn(async move {
            let mut tracker = Tracker::default();
            let stream = stream.default_backoff();
            pin_mut!(stream);
            let mut told = false;
            while let Some(event) = stream.next().await {
                let event = match event {
                    Ok(event) => event,
                    // No kind, no objects: who waits for the list has it. Once it is installed,
                    // they come as any others.
                    Err(error) if is_absent(&error) => {
                        let first = !std::mem::replace(&mut told, true);
                        if first && sender.send(Update::Synced(T::KIND)).await.is_err() {
                            return;
                        }
                        if first {
                            tracing::info!(kind = T::KIND.name(), "the kind is not installed");
                        }
                        tokio::time::sleep(ABSENT_PAUSE).await;
                        continue;
                    }
                    Err(error) => {
                        tracing::warn!(kind = T::KIND.name(), %error, "watch interrupted");
                        continue;
                    }
                };
                for update in tracker.updates(event, &read) {
                    if sender.send(update).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

/// The API server does not know the kind.
fn is_absent(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))) = error
    else {
        return false;
    };
    // A group that the server does not know at all is answered in plain text.
    status.code == 404
}

/// Knows which objects exist, so that a relist reveals what went unseen.
#[derive(Debug, Default)]
pub struct Tracker {
    known: BTreeSet<Text>,
    /// Keys met by the list in progress.
    listed: BTreeSet<Text>,
}

impl Tracker {
    /// Translates one event of a watch.
    pub fn updates<K: ResourceExt, T: Object>(
        &mut self,
        event: Event<K>,
        read: &impl Fn(K) -> (Seen, Result<T, Refused>),
    ) -> Vec<Update> {
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(raw) => {
                self.listed.insert(key_of(&raw));
                vec![self.present(raw, read)]
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let gone: Vec<Text> = self.known.difference(&listed).cloned().collect();
                self.known = listed;
                let mut updates: Vec<Update> =
                    gone.into_iter().map(|k| change(T::KIND, k, What::AbsentAfterRelist)).collect();
                updates.push(Update::Synced(T::KIND));
                updates
            }
            Event::Apply(raw) => vec![self.present(raw, read)],
            Event::Delete(raw) => {
                let key = key_of(&raw);
                self.known.remove(&key);
                vec![change(T::KIND, key, What::Deleted)]
            }
        }
    }

    fn present<K: ResourceExt, T: Object>(
        &mut self,
        raw: K,
        read: &impl Fn(K) -> (Seen, Result<T, Refused>),
    ) -> Update {
        let key = key_of(&raw);
        self.known.insert(key.clone());
        let (seen, parsed) = read(raw);
        let what = match parsed {
            Ok(object) => What::Upsert(Arc::new(object), Arc::new(seen)),
            Err(refused) => What::Refused(refused, Arc::new(seen)),
        };
        change(T::KIND, key, what)
    }
}

fn change(kind: Kind, key: Text, what: What) -> Update {
    Update::Change(Change { kind, key, what })
}

fn key_of(raw: &impl ResourceExt) -> Text {
    match raw.namespace() {
        Some(namespace) => format!("{namespace}/{}", raw.name_any()).into(),
        None => raw.name_any().into(),
    }
}

/// Decodes one custom resource by itself; one that is not valid a second time, as it was when it
/// was.
pub fn read_custom<K: Resource + DeserializeOwned, T: Object>(
    raw: DynamicObject,
    parse: impl Fn(&K) -> Result<T, Vec<Invalid>>,
) -> (Seen, Result<T, Refused>) {
    let seen = Seen::of(&raw);
    let record = last_valid::recorded(&raw.data);
    let before = record.map(|spec| DynamicObject {
        types: raw.types.clone(),
        metadata: raw.metadata.clone(),
        data: serde_json::json!({
            "spec": spec,
            "status": { last_valid::FIELD: raw.data["status"][last_valid::FIELD] },
        }),
    });
    let parsed = decode(raw, &parse).map_err(|invalid| {
        let object = before.and_then(|before| decode(before, &parse).ok());
        let last_valid = object.map(|object| Arc::new(object) as Arc<dyn Stored>);
        Refused { invalid, last_valid }
    });
    (seen, parsed)
}

fn decode<K: Resource + DeserializeOwned, T: Object>(
    raw: DynamicObject,
    parse: impl Fn(&K) -> Result<T, Vec<Invalid>>,
) -> Result<T, Vec<Invalid>> {
    let name = raw.name_any();
    let typed = typed::<K>(raw).map_err(|error| {
        let kind = T::KIND.name();
        vec![Invalid {
            reason: malformed(T::KIND),
            message: format!("{kind} {name} is malformed: {error}; correct that field"),
        }]
    });
    typed.and_then(|typed| parse(&typed))
}

/// Moved, not copied (as `try_parse` does), and without `managedFields`, the larger part of most
/// objects.
fn typed<K: DeserializeOwned>(raw: DynamicObject) -> serde_json::Result<K> {
    let Value::Object(mut object) = raw.data else {
        return serde_json::from_value(raw.data);
    };
    let metadata = ObjectMeta { managed_fields: None, ..raw.metadata };
    object.insert("metadata".to_owned(), serde_json::to_value(metadata)?);
    if let Some(TypeMeta { api_version, kind }) = raw.types {
        object.insert("apiVersion".to_owned(), api_version.into());
        object.insert("kind".to_owned(), kind.into());
    }
    serde_json::from_value(object.into())
}

/// The reason under which users look for problems of a kind.
fn malformed(kind: Kind) -> &'static str {
    match kind {
        Kind::Subnet => "ValidateLogicalSwitchFailed",
        Kind::IpPool => "UpdateIPAMFailed",
        _ => "ValidateObjectFailed",
    }
}

#[derive(Clone, Copy)]
enum Keep {
    Ours,
    All,
}

fn seen(meta: &ObjectMeta, keep: Keep) -> Seen {
    let text = |text: &Option<String>| Text::from(text.as_deref().unwrap_or_default());
    let map = |map: &Option<BTreeMap<String, String>>| {
        let entries = map.iter().flatten().filter(|(key, _)| kept(key, keep));
        entries.map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect()
    };
    Seen {
        uid: text(&meta.uid),
        resource_version: text(&meta.resource_version),
        generation: meta.generation.unwrap_or_default(),
        annotations: map(&meta.annotations),
        labels: map(&meta.labels),
        finalizers: meta.finalizers.iter().flatten().map(|f| f.as_str().into()).collect(),
        deleting: meta.deletion_timestamp.is_some(),
        spec: None,
        status: None,
    }
}

/// Keys that may be ours. Providers have any name, so foreign `*.kubernetes.io` keys stay too,
/// but for the ones that are big or on every object.
fn kept(key: &str, keep: Keep) -> bool {
    let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
    let foreign = ["kubectl.kubernetes.io", "app.kubernetes.io", "deployment.kubernetes.io"];
    match keep {
        Keep::All => prefix != "kubectl.kubernetes.io",
        Keep::Ours => {
            !foreign.contains(&prefix)
                && (prefix.ends_with(".kubernetes.io") || prefix.contains("kube-ovn"))
        }
    }
}
