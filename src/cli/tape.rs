//! What a cluster answered, kept: answers of the API server by path, and of commands by place.
//!
//! A tape replays its answers through an ordinary Kubernetes client, so that every command that
//! only asks works on a support bundle as it does on a cluster, and `plan` can ask a cluster that
//! does not exist yet.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode},
};
use kube::Client;
use serde_json::{Value, json};

/// The answer of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    pub code: u8,
    pub stdout: String,
    pub stderr: String,
}

/// Recorded answers. Lists are kept under their cluster-wide path (`/api/v1/pods`).
#[derive(Debug, Default)]
pub struct Tape {
    lists: Mutex<BTreeMap<String, Value>>,
    /// `place command...` -> answer.
    said: Mutex<BTreeMap<String, Said>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tape {
    pub fn insert(&self, path: &str, list: Value) {
        locked(&self.lists).insert(path.to_owned(), list);
    }

    pub fn list(&self, path: &str) -> Option<Value> {
        locked(&self.lists).get(path).cloned()
    }

    pub fn lists(&self) -> BTreeMap<String, Value> {
        locked(&self.lists).clone()
    }

    pub fn note(&self, question: &str, said: Said) {
        locked(&self.said).insert(question.to_owned(), said);
    }

    pub fn said(&self, question: &str) -> Option<Said> {
        locked(&self.said).get(question).cloned()
    }

    pub fn all_said(&self) -> BTreeMap<String, Said> {
        locked(&self.said).clone()
    }

    /// A client that answers from this tape; what the tape lacks it asks `live` for, and keeps it.
    pub fn client(self: &Arc<Self>, live: Option<Client>) -> Client {
        let tape = Arc::clone(self);
        let answer = move |request: Request<Body>| {
            let (tape, live) = (Arc::clone(&tape), live.clone());
            async move { tape.answer(request, live).await }
        };
        Client::new(Router::new().fallback(answer), "default")
    }

    async fn answer(&self, request: Request<Body>, live: Option<Client>) -> Response<Body> {
        let question = Question::parse(request.uri().path(), request.uri().query());
        if question.watch {
            // Nothing ever changes on a tape.
            return std::future::pending().await;
        }
        if self.list(&question.list).is_none() {
            let list = match &live {
                Some(live) => fetch(live, &question.list).await,
                None => Ok(None),
            };
            match list {
                Ok(list) => self.insert(&question.list, list.unwrap_or_else(empty)),
                Err(error) => return refusal(StatusCode::BAD_GATEWAY, &error.to_string()),
            }
        }
        let list = self.list(&question.list).unwrap_or_else(empty);
        match question.select(list) {
            Some(found) => respond(StatusCode::OK, &found),
            None => refusal(StatusCode::NOT_FOUND, "not found"),
        }
    }
}

fn empty() -> Value {
    json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []})
}

/// A list of the API server; `None` when it does not know the resource.
async fn fetch(live: &Client, path: &str) -> Result<Option<Value>, kube::Error> {
    let request = Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
    match live.request::<Value>(request).await {
        Ok(list) => Ok(Some(list)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

fn respond(status: StatusCode, body: &Value) -> Response<Body> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Body::from(body.to_string())).unwrap_or_default()
}

fn refusal(status: StatusCode, message: &str) -> Response<Body> {
    let code = status.as_u16();
    respond(
        status,
        &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                "reason": status.canonical_reason(), "message": message}),
    )
}

/// A request for a list, or for one object of it.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    /// Path of the cluster-wide list that holds the answer.
    list: String,
    namespace: Option<String>,
    name: Option<String>,
    /// `key=value` pairs of the label selector, and of the field selector.
    labels: Vec<(String, String)>,
    fields: Vec<(String, String)>,
    watch: bool,
}

impl Question {
    fn parse(path: &str, query: Option<&str>) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        // `/api/v1/...` or `/apis/GROUP/VERSION/...`
        let head = if parts.first() == Some(&"api") { 2 } else { 3 };
        let (base, rest) = parts.split_at(head.min(parts.len()));
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            rest => (None, rest),
        };
        let resource = rest.first().copied().unwrap_or_default();
        let query = query.unwrap_or_default();
        let value = |key: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(k, _)| *k == key).map(|(_, v)| decoded(v)).unwrap_or_default()
        };
        let pairs = |text: String| {
            let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
            pairs.map(|(k, v)| (k.to_owned(), v.trim_start_matches('=').to_owned())).collect()
        };
        Question {
            list: format!("/{}/{resource}", base.join("/")),
            namespace: namespace.map(str::to_owned),
            name: rest.get(1).map(|name| (*name).to_owned()),
            labels: pairs(value("labelSelector")),
            fields: pairs(value("fieldSelector")),
            watch: matches!(value("watch").as_str(), "true" | "1"),
        }
    }

    fn select(&self, mut list: Value) -> Option<Value> {
        let items = list.get_mut("items").and_then(Value::as_array_mut)?;
        items.retain(|item| self.matches(item));
        if self.name.is_some() {
            return items.pop();
        }
        Some(list)
    }

    fn matches(&self, item: &Value) -> bool {
        let meta = &item["metadata"];
        let field = |path: &str| path.split('.').fold(item, |at, key| &at[key]).clone();
        self.namespace.as_deref().is_none_or(|ns| meta["namespace"] == ns)
            && self.name.as_deref().is_none_or(|name| meta["name"] == name)
            && self.labels.iter().all(|(k, v)| meta["labels"][k] == v.as_str())
            && self.fields.iter().all(|(k, v)| field(k) == v.as_str())
    }
}

/// Percent decoding of a query value.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        match byte {
            b'%' => {
                let (high, low) = (hex(rest.next()), hex(rest.next()));
                let value = high.zip(low).and_then(|(h, l)| u8::try_from(h * 16 + l).ok());
                bytes.extend(value);
            }
            b'+' => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_name_the_list_that_answers_them() {
        for (path, list, namespace, name) in [
            ("/api/v1/pods", "/api/v1/pods", None, None),
            ("/api/v1/namespaces", "/api/v1/namespaces", None, None),
            ("/api/v1/namespaces/a", "/api/v1/namespaces", None, Some("a")),
            ("/api/v1/namespaces/a/pods", "/api/v1/pods", Some("a"), None),
            ("/api/v1/namespaces/a/pods/b", "/api/v1/pods", Some("a"), Some("b")),
            ("/apis/kubeovn.io/v1/subnets/s", "/apis/kubeovn.io/v1/subnets", None, Some("s")),
        ] {
            let found = Question::parse(path, None);
            assert_eq!(found.list, list, "{path}");
            assert_eq!(found.namespace.as_deref(), namespace, "{path}");
            assert_eq!(found.name.as_deref(), name, "{path}");
        }
    }

    #[test]
    fn selectors_are_applied() {
        let query = "labelSelector=app%3Dovs&fieldSelector=spec.nodeName%3Dn1&watch=false";
        let question = Question::parse("/api/v1/pods", Some(query));
        let pod =
            |app, node| json!({"metadata": {"labels": {"app": app}}, "spec": {"nodeName": node}});
        assert!(question.matches(&pod("ovs", "n1")) && !question.watch);
        assert!(!question.matches(&pod("ovs", "n2")));
        assert!(!question.matches(&pod("cni", "n1")));
    }
}
