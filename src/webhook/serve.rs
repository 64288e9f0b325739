//! HTTPS for the API server, and the facts that a decision asks for.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http,
    routing::post,
};
use kube::Client;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{
    certificate::{Current, NAMESPACE},
    review::{Facts, Question, Request, Stop, review},
};
use crate::{api::Settings, telemetry::serve::TlsListener};

/// An object of 3 MiB, its former self, and what is around them.
const LONGEST: usize = 8 << 20;
/// No decision needs more facts.
const MOST_FACTS: usize = 16;

/// What every review needs.
pub struct Reviewer {
    pub client: Client,
    pub settings: Settings,
}

#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Serves `/validating` for ever.
pub async fn serve(
    address: SocketAddr,
    certificate: Arc<Current>,
    reviewer: Arc<Reviewer>,
) -> Result<(), WebhookError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| WebhookError::Listen { address, source })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    let listener = TlsListener::new(listener, TlsAcceptor::from(Arc::new(config)));
    let router = Router::new()
        .route("/validating", post(validate))
        .layer(DefaultBodyLimit::max(LONGEST))
        .with_state(reviewer);
    axum::serve(listener, router).await.map_err(|source| WebhookError::Listen { address, source })
}

async fn validate(
    State(reviewer): State<Arc<Reviewer>>,
    body: Bytes,
) -> Result<Json<Value>, (http::StatusCode, String)> {
    let bad = |text: String| (http::StatusCode::BAD_REQUEST, text);
    let asked: Value = serde_json::from_slice(&body).map_err(|e| bad(e.to_string()))?;
    let request = Request::parse(&asked["request"])
        .ok_or_else(|| bad("no AdmissionReview with a request".to_owned()))?;
    let verdict = reviewer.decide(&request).await;
    if let Verdict::Refused { message, .. } = &verdict {
        let Request { resource, namespace, name, .. } = &request;
        tracing::info!(resource, namespace, name, message, "refused");
    }
    Ok(Json(answer(&asked, &verdict)))
}

/// The end of a review.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    Refused {
        code: u16,
        message: String,
    },
    /// Not decided, so allowed, as the failure policy has it.
    Unknown(String),
}

/// The AdmissionReview to send back.
pub fn answer(asked: &Value, verdict: &Verdict) -> Value {
    let mut response = json!({"uid": asked["request"]["uid"], "allowed": true});
    match verdict {
        Verdict::Allowed => {}
        Verdict::Refused { code, message } => {
            response["allowed"] = false.into();
            response["status"] = json!({"code": code, "message": message});
        }
        Verdict::Unknown(why) => {
            response["warnings"] = json!([format!("kube-ovn-webhook did not check this: {why}")]);
        }
    }
    let version = asked["apiVersion"].as_str().unwrap_or("admission.k8s.io/v1");
    json!({"apiVersion": version, "kind": "AdmissionReview", "response": response})
}

impl Reviewer {
    pub async fn decide(&self, request: &Request) -> Verdict {
        let mut facts = Facts::default();
        for _ in 0..MOST_FACTS {
            match review(request, &facts, &self.settings) {
                Ok(()) => return Verdict::Allowed,
                Err(Stop::Refused { code, message }) => return Verdict::Refused { code, message },
                Err(Stop::Need(question)) => match self.read(&question).await {
                    Ok(answer) => {
                        facts.0.insert(question, answer);
                    }
                    Err(error) => {
                        tracing::warn!(%error, ?question, "a fact cannot be read");
                        return Verdict::Unknown(error.to_string());
                    }
                },
            }
        }
        Verdict::Unknown("it needs too many facts".to_owned())
    }

    async fn read(&self, question: &Question) -> Result<Vec<Value>, kube::Error> {
        let request = http::Request::get(path(question)).body(Vec::new());
        let request = request.map_err(kube::Error::HttpError)?;
        match self.client.request::<Value>(request).await {
            Ok(mut found) => Ok(match (question, found["items"].take()) {
                (Question::All(..), Value::Array(items)) => items,
                _ => vec![found],
            }),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// Path of the API that answers a question.
pub fn path(question: &Question) -> String {
    match question {
        Question::All(plural, labels) if labels.is_empty() => {
            format!("/apis/kubeovn.io/v1/{plural}")
        }
        Question::All(plural, labels) => {
            format!("/apis/kubeovn.io/v1/{plural}?labelSelector={}", escaped(labels))
        }
        Question::One(plural, name) => format!("/apis/kubeovn.io/v1/{plural}/{}", escaped(name)),
        Question::Config(name) => format!("/api/v1/namespaces/{NAMESPACE}/configmaps/{name}"),
    }
}

/// Users choose names: nothing but letters, digits and `-._` goes into a path as it is.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}
