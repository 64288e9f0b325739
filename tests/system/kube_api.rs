//! As much of the Kubernetes API as a node daemon uses: lists, watches, merge patches that are
//! recorded. Objects are JSON; the test puts them in.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path as UrlPath, RawQuery, State},
    response::{IntoResponse, Response},
    routing::{get, patch},
};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// Plural of the kind -> name -> object.
type Objects = BTreeMap<String, BTreeMap<String, Value>>;

#[derive(Clone)]
pub struct KubeApi {
    objects: Arc<Mutex<Objects>>,
    patches: Arc<Mutex<Vec<(String, Value)>>>,
    events: broadcast::Sender<(String, Value)>,
    pub port: u16,
}

impl KubeApi {
    /// Serves on a port of the loopback interface of this namespace.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = KubeApi {
            objects: Arc::default(),
            patches: Arc::default(),
            events: broadcast::Sender::new(256),
            port: listener.local_addr().unwrap().port(),
        };
        let router = Router::new()
            .route("/api/v1/{plural}", get(list_core))
            .route("/apis/kubeovn.io/v1/{plural}", get(list_custom))
            .route("/api/v1/nodes/{name}", patch(patch_node))
            .route("/api/v1/nodes/{name}/status", patch(patch_status))
            .with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        api
    }

    /// A kubeconfig for it.
    pub fn write_kubeconfig(&self, path: &Path) {
        Self::write_kubeconfig_for(self.port, path);
    }

    /// A kubeconfig for a server on this port of the loopback interface.
    pub fn write_kubeconfig_for(port: u16, path: &Path) {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
        });
        std::fs::write(path, config.to_string()).unwrap();
    }

    /// Creates or replaces an object.
    pub fn put(&self, plural: &str, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.objects
            .lock()
            .unwrap()
            .entry(plural.to_owned())
            .or_default()
            .insert(name, object.clone());
        let event = json!({"type": "MODIFIED", "object": object});
        let _ = self.events.send((plural.to_owned(), event));
    }

    /// Patches so far: `nodes/<name>` or `nodes/<name>/status`, body.
    pub fn patches(&self) -> Vec<(String, Value)> {
        self.patches.lock().unwrap().clone()
    }

    fn list(&self, plural: &str, query: Option<String>) -> Response {
        if query.unwrap_or_default().contains("watch=") {
            let events = tokio_stream(self.events.subscribe(), plural.to_owned());
            return Body::from_stream(events).into_response();
        }
        let objects = self.objects.lock().unwrap();
        let items: Vec<Value> =
            objects.get(plural).into_iter().flat_map(|m| m.values().cloned()).collect();
        Json(json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"},
                    "items": items}))
        .into_response()
    }

    fn patched(&self, path: String, name: &str, body: &Value) -> Response {
        self.patches.lock().unwrap().push((path, body.clone()));
        let mut node = self.objects.lock().unwrap()["nodes"][name].clone();
        if let Some(annotations) = body["metadata"]["annotations"].as_object() {
            for (key, value) in annotations {
                node["metadata"]["annotations"][key] = value.clone();
            }
            self.put("nodes", node.clone());
        }
        Json(node).into_response()
    }
}

fn tokio_stream(
    events: broadcast::Receiver<(String, Value)>,
    plural: String,
) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> {
    futures::stream::unfold(events, |mut events| async move {
        events.recv().await.ok().map(|event| (event, events))
    })
    .filter_map(move |(kind, event)| {
        let line = (kind == plural).then(|| Ok(Bytes::from(format!("{event}\n"))));
        std::future::ready(line)
    })
}

async fn list_core(
    State(api): State<KubeApi>,
    UrlPath(plural): UrlPath<String>,
    RawQuery(query): RawQuery,
) -> Response {
    api.list(&plural, query)
}

async fn list_custom(
    State(api): State<KubeApi>,
    UrlPath(plural): UrlPath<String>,
    RawQuery(query): RawQuery,
) -> Response {
    api.list(&plural, query)
}

async fn patch_node(
    State(api): State<KubeApi>,
    UrlPath(name): UrlPath<String>,
    body: Bytes,
) -> Response {
    api.patched(format!("nodes/{name}"), &name, &serde_json::from_slice(&body).unwrap())
}

async fn patch_status(
    State(api): State<KubeApi>,
    UrlPath(name): UrlPath<String>,
    body: Bytes,
) -> Response {
    api.patched(format!("nodes/{name}/status"), &name, &serde_json::from_slice(&body).unwrap())
}
