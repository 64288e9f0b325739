//! The publisher against an API server kept by this test: retries, conflicts, replacement.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use kube::{Client, Config};
use kube_ovn::{
    api::{Invalid, Kind, Text},
    controller::publish::Publisher,
    store::{
        Owner, Presence, Problem, Wanted,
        watch::{Change, Refused, Seen, SeenMap, What},
    },
};
use serde_json::{Value, json};

#[derive(Default)]
struct Log {
    /// `method path` and body of each request.
    requests: Vec<(String, Value)>,
    /// Status codes of the next answers; 200 when empty.
    answers: VecDeque<u16>,
}

type Shared = Arc<Mutex<Log>>;

async fn answer(State(log): State<Shared>, method: Method, uri: Uri, body: String) -> Response {
    let mut log = log.lock().unwrap();
    let body = serde_json::from_str(&body).unwrap_or(Value::Null);
    log.requests.push((format!("{method} {}", uri.path()), body));
    let code = log.answers.pop_front().unwrap_or(200);
    let metadata = json!({"name": "x", "uid": "u", "resourceVersion": "10"});
    let kind = if uri.path().contains("/events") { "Event" } else { "X" };
    let body = match code {
        200 => {
            json!({"apiVersion": "v1", "kind": kind, "metadata": metadata, "involvedObject": {}})
        }
        code => json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code,
            "message": "metadata.uid: field is immutable",
            "reason": if uri.path().ends_with("/events") { "AlreadyExists" } else { "" }}),
    };
    (StatusCode::from_u16(code).unwrap(), Json(body)).into_response()
}

struct Rig {
    log: Shared,
    publisher: Publisher,
    seen: SeenMap,
}

impl Rig {
    async fn new(answers: &[u16]) -> Rig {
        let log = Shared::default();
        log.lock().unwrap().answers.extend(answers);
        let router = Router::new().fallback(answer).with_state(Arc::clone(&log));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = Config::new(url);
        config.default_retry = false;
        let publisher = Publisher::new(Client::try_from(config).unwrap(), "kube-ovn-controller");
        let mut rig = Rig { log, publisher, seen: SeenMap::default() };
        for (kind, key) in [(Kind::Pod, "ns/p"), (Kind::Ip, "v"), (Kind::Subnet, "s")] {
            rig.see(
                kind,
                key,
                Seen { uid: "u".into(), resource_version: "9".into(), ..Seen::default() },
            );
        }
        rig
    }

    fn see(&mut self, kind: Kind, key: &str, seen: Seen) {
        self.seen.insert(kind, key.into(), Arc::new(seen));
    }

    /// Flushes and waits until nothing is under way.
    async fn settle(&mut self) -> Vec<(String, Value)> {
        self.publisher.flush(&self.seen);
        for _ in 0..500 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if self.publisher.pending() == 0 {
                break;
            }
        }
        assert_eq!(self.publisher.pending(), 0);
        // Events have tasks of their own.
        tokio::time::sleep(Duration::from_millis(100)).await;
        std::mem::take(&mut self.log.lock().unwrap().requests)
    }
}

fn owner(kind: Kind, key: &str) -> Owner {
    Owner { feature: "test", kind, key: key.into() }
}

fn annotate(value: &str) -> Vec<Wanted> {
    let values = BTreeMap::from([(Text::from("a"), Some(Text::from(value)))]);
    vec![Wanted::Annotations { kind: Kind::Pod, key: "ns/p".into(), values }]
}

fn paths(requests: &[(String, Value)]) -> Vec<&str> {
    requests.iter().map(|(path, _)| path.as_str()).collect()
}

const POD: &str = "PATCH /api/v1/namespaces/ns/pods/p";

#[tokio::test]
async fn trouble_is_retried_and_the_latest_wish_wins() {
    let mut rig = Rig::new(&[503, 403]).await;
    rig.publisher.reconcile(&owner(Kind::Pod, "ns/p"), annotate("1"), vec![]);
    rig.publisher.flush(&rig.seen);
    tokio::time::sleep(Duration::from_millis(50)).await;
    rig.publisher.reconcile(&owner(Kind::Pod, "ns/p"), annotate("2"), vec![]);
    let requests = rig.settle().await;
    assert_eq!(paths(&requests), [POD, POD, POD]);
    assert_eq!(requests[2].1, json!({"metadata": {"uid": "u", "annotations": {"a": "2"}}}));
}

#[tokio::test]
async fn a_successor_of_the_same_name_is_left_alone() {
    let mut rig = Rig::new(&[422]).await;
    rig.publisher.reconcile(&owner(Kind::Pod, "ns/p"), annotate("1"), vec![]);
    assert_eq!(paths(&rig.settle().await), [POD]);
    let mut rig = Rig::new(&[404]).await;
    rig.publisher.reconcile(&owner(Kind::Pod, "ns/p"), annotate("1"), vec![]);
    assert_eq!(paths(&rig.settle().await), [POD]);
}

#[tokio::test]
async fn a_conflict_is_decided_anew_on_what_is_there() {
    let mut rig = Rig::new(&[409]).await;
    let presence = Presence::Present;
    let wanted = Wanted::Finalizer { kind: Kind::Ip, key: "v".into(), presence };
    rig.publisher.reconcile(&owner(Kind::Ip, "v"), vec![wanted], vec![]);
    let requests = rig.settle().await;
    let path = "/apis/kubeovn.io/v1/ips/v";
    assert_eq!(
        paths(&requests),
        [format!("PATCH {path}"), format!("GET {path}"), format!("PATCH {path}")]
    );
    assert_eq!(requests[0].1["metadata"]["resourceVersion"], "9");
    assert_eq!(requests[2].1["metadata"]["resourceVersion"], "10");
}

#[tokio::test]
async fn what_others_overwrite_is_written_again() {
    let mut rig = Rig::new(&[]).await;
    rig.publisher.reconcile(&owner(Kind::Pod, "ns/p"), annotate("1"), vec![]);
    assert_eq!(rig.settle().await.len(), 1);
    let annotations = [("a", "1")].map(|(k, v)| (Text::from(k), Text::from(v))).into();
    rig.see(Kind::Pod, "ns/p", Seen { uid: "u".into(), annotations, ..Seen::default() });
    rig.publisher.reconcile(&owner(Kind::Pod, "ns/p"), annotate("1"), vec![]);
    assert_eq!(rig.settle().await.len(), 0, "as wanted");
    let seen = Seen { uid: "u".into(), ..Seen::default() };
    rig.see(Kind::Pod, "ns/p", seen.clone());
    let what = What::Refused(Refused::default(), Arc::new(seen));
    rig.publisher.note(&Change { kind: Kind::Pod, key: "ns/p".into(), what });
    // The change itself carries no wish; the owner's still stands.
    rig.publisher.reconcile(&owner(Kind::Pod, "ns/p"), annotate("1"), vec![]);
    assert_eq!(paths(&rig.settle().await), [POD]);
}

#[tokio::test]
async fn owners_judge_a_subnet_together_and_an_event_is_sent_once() {
    let mut rig = Rig::new(&[]).await;
    let problem = Problem {
        kind: Kind::Subnet,
        key: "s".into(),
        reason: "NoActiveGatewayFound",
        message: "m".into(),
    };
    rig.publisher.reconcile(&owner(Kind::Subnet, "s"), vec![], vec![]);
    let other = Owner { feature: "other", ..owner(Kind::Subnet, "s") };
    rig.publisher.reconcile(&other, vec![], vec![problem.clone()]);
    let requests = rig.settle().await;
    let mut sent = paths(&requests);
    sent.sort();
    let status = "PATCH /apis/kubeovn.io/v1/subnets/s/status";
    let events = "POST /api/v1/namespaces/default/events";
    assert_eq!(sent, [status, events]);
    let body = requests.iter().find(|(path, _)| path == status).unwrap();
    assert_eq!(body.1["status"]["conditions"][1]["status"], "False", "never Ready in between");
    // Before the watch has shown the write, the same again: the patch may repeat, the event not.
    rig.publisher.reconcile(&other, vec![], vec![problem]);
    assert!(!paths(&rig.settle().await).contains(&events));
}

#[tokio::test]
async fn a_refused_object_gets_its_condition_without_any_owner() {
    let mut rig = Rig::new(&[]).await;
    let invalid =
        Invalid { reason: "ValidateLogicalSwitchFailed", message: "spec.cidrBlock".into() };
    let seen = rig.seen.get(Kind::Subnet, "s").unwrap().clone();
    let what = What::Refused(vec![invalid].into(), seen);
    rig.publisher.note(&Change { kind: Kind::Subnet, key: "s".into(), what });
    let requests = rig.settle().await;
    let status = requests.iter().find(|(path, _)| path.ends_with("/status")).unwrap();
    assert_eq!(status.1["status"]["conditions"][0]["message"], "spec.cidrBlock");
}

#[tokio::test]
async fn an_event_that_exists_is_counted_up() {
    let mut rig = Rig::new(&[409]).await;
    let problem = Problem { kind: Kind::Pod, key: "ns/p".into(), reason: "R", message: "m".into() };
    rig.publisher.reconcile(&owner(Kind::Pod, "ns/p"), vec![], vec![problem]);
    let requests = rig.settle().await;
    let sent: Vec<&str> =
        paths(&requests).into_iter().map(|p| p.split(' ').next().unwrap()).collect();
    assert_eq!(sent, ["POST", "GET", "PATCH"]);
    assert_eq!(requests[0].1["involvedObject"]["name"], "p");
    assert_eq!(requests[0].1["type"], "Warning");
    assert_eq!(requests[2].1["count"], 2);
}
