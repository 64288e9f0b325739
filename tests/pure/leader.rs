//! Leader election: the decision, and whole candidacies against a Lease kept by this test.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    jiff::Timestamp,
};
use kube::{Client, Config};
use kube_ovn::controller::leader::{
    self, Election, Leadership, Role, Step, Timing, decide, lease_client,
};
use serde_json::json;

/// One Lease behind HTTP, with optimistic concurrency; `down` answers 503.
#[derive(Clone, Default)]
struct Server {
    lease: Arc<Mutex<Option<Lease>>>,
    version: Arc<Mutex<u64>>,
    down: Arc<AtomicBool>,
}

fn status(code: u16, reason: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": reason, "reason": reason, "code": code});
    (StatusCode::from_u16(code).unwrap(), Json(body)).into_response()
}

impl Server {
    async fn start(&self) -> Client {
        let one = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-ovn-controller";
        let all = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
        let router = Router::new()
            .route(one, get(Self::read).put(Self::replace))
            .route(all, post(Self::create))
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let _ = rustls::crypto::ring::default_provider().install_default();
        lease_client(Config::new(url)).unwrap()
    }

    fn store(&self, mut lease: Lease) -> Response {
        let mut version = self.version.lock().unwrap();
        *version += 1;
        lease.metadata.resource_version = Some(version.to_string());
        *self.lease.lock().unwrap() = Some(lease.clone());
        Json(lease).into_response()
    }

    async fn read(State(me): State<Server>) -> Response {
        match me.lease.lock().unwrap().clone() {
            _ if me.down.load(Ordering::SeqCst) => status(503, "ServiceUnavailable"),
            Some(lease) => Json(lease).into_response(),
            None => status(404, "NotFound"),
        }
    }

    async fn create(State(me): State<Server>, Json(lease): Json<Lease>) -> Response {
        let exists = me.lease.lock().unwrap().is_some();
        match () {
            () if me.down.load(Ordering::SeqCst) => status(503, "ServiceUnavailable"),
            () if exists => status(409, "AlreadyExists"),
            () => me.store(lease),
        }
    }

    async fn replace(State(me): State<Server>, Json(lease): Json<Lease>) -> Response {
        let current = me.lease.lock().unwrap().clone();
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        match current {
            _ if me.down.load(Ordering::SeqCst) => status(503, "ServiceUnavailable"),
            None => status(404, "NotFound"),
            Some(old) if version(&old) != version(&lease) => status(409, "Conflict"),
            Some(_) => me.store(lease),
        }
    }

    fn spec(&self) -> LeaseSpec {
        self.lease.lock().unwrap().clone().unwrap().spec.unwrap()
    }
}

const QUICK: Timing = Timing {
    lease: Duration::from_secs(1),
    renew_deadline: Duration::from_millis(600),
    retry: Duration::from_millis(50),
    silent: Duration::from_millis(100),
};

fn stand(client: &Client, identity: &str) -> Election {
    leader::run_with(client.clone(), "kube-system", "kube-ovn-controller", identity, QUICK)
}

async fn until(election: &Election, wanted: impl FnMut(&Leadership) -> bool) -> Leadership {
    let mut state = election.watch();
    let waited = tokio::time::timeout(Duration::from_secs(10), state.wait_for(wanted)).await;
    waited.expect("state not reached").unwrap().clone()
}

fn leads(state: &Leadership) -> bool {
    matches!(state, Leadership::Leading { .. })
}

#[tokio::test]
async fn one_leads_and_a_resignation_hands_over_at_once() {
    let server = Server::default();
    let client = server.start().await;
    let first = stand(&client, "a");
    let Leadership::Leading { epoch } = until(&first, leads).await else { panic!() };
    let second = stand(&client, "b");
    let seen = until(&second, |s| *s == Leadership::Standby { holder: Some("a".into()) }).await;
    assert!(!leads(&seen));
    let resigned = std::time::Instant::now();
    first.resign().await;
    let Leadership::Leading { epoch: next } = until(&second, leads).await else { panic!() };
    assert!(resigned.elapsed() < Duration::from_millis(700), "a released lease is not waited for");
    assert_ne!(epoch, next);
    assert_eq!(server.spec().lease_transitions, Some(2));
}

#[tokio::test]
async fn a_silent_api_server_ends_leadership_within_the_renew_deadline() {
    let server = Server::default();
    let election = stand(&server.start().await, "a");
    until(&election, leads).await;
    server.down.store(true, Ordering::SeqCst);
    let began = std::time::Instant::now();
    until(&election, |s| matches!(s, Leadership::Lost { .. })).await;
    assert!(began.elapsed() < QUICK.lease, "lost before another candidate may start");
}

#[tokio::test]
async fn a_dead_leader_is_replaced_after_its_lease() {
    let server = Server::default();
    let client = server.start().await;
    let first = stand(&client, "a");
    until(&first, leads).await;
    let second = stand(&client, "b");
    drop(first);
    let began = std::time::Instant::now();
    until(&second, leads).await;
    assert!(began.elapsed() >= Duration::from_millis(700), "not before the lease ran out");
}

#[tokio::test]
async fn a_stolen_lease_is_noticed_and_a_deleted_one_is_made_again() {
    let server = Server::default();
    let election = stand(&server.start().await, "a");
    until(&election, leads).await;
    *server.lease.lock().unwrap() = None;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(leads(&election.watch().borrow()), "still leading");
    let mut lease = server.lease.lock().unwrap().clone().unwrap();
    lease.spec.as_mut().unwrap().holder_identity = Some("thief".into());
    server.store(lease);
    let state = until(&election, |s| matches!(s, Leadership::Lost { .. })).await;
    assert_eq!(state, Leadership::Lost { reason: "\"thief\" took the lease".into() });
}

#[test]
fn decisions() {
    let now = Timestamp::now();
    let lease = Duration::from_secs(30);
    let held = |holder: &str| LeaseSpec {
        holder_identity: Some(holder.into()),
        lease_duration_seconds: Some(30),
        lease_transitions: Some(4),
        ..Default::default()
    };
    let step = |spec: &LeaseSpec, age: u64, role: Role| {
        decide(spec, Duration::from_secs(age), ("me", role), (lease, now))
    };
    let transitions = |step: Step| match step {
        Step::Claim(spec) => spec.lease_transitions,
        Step::Stand { .. } => None,
    };
    assert_eq!(step(&held("you"), 29, Role::Candidate), Step::Stand { holder: "you".into() });
    assert_eq!(transitions(step(&held("you"), 30, Role::Candidate)), Some(5));
    assert_eq!(transitions(step(&held(""), 0, Role::Candidate)), Some(5), "released");
    assert_eq!(transitions(step(&held("me"), 0, Role::Leader)), Some(4), "renewal");
    assert_eq!(transitions(step(&held("me"), 0, Role::Candidate)), Some(5), "our predecessor");
    assert_eq!(transitions(step(&LeaseSpec::default(), 0, Role::Candidate)), Some(1));
}
