//! Who may read the metrics of a secured port: TokenReview, then SubjectAccessReview of the path,
//! as Kubernetes' delegated authentication does.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

/// How long an answer of the API server is kept.
const KEEP: Duration = Duration::from_secs(10);
/// Answers kept at most; a caller that invents tokens must not fill the memory.
const KEPT: usize = 1024;
/// Longest wait for the API server.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    Unauthenticated,
    Forbidden,
    /// The API server did not answer.
    Unavailable,
}

pub struct Gate {
    client: Client,
    kept: Mutex<HashMap<[u8; 32], (Instant, Verdict)>>,
}

impl Gate {
    pub fn new(client: Client) -> Self {
        Gate { client, kept: Mutex::default() }
    }

    /// `authorization` is the header's value; `verb` a lower-case HTTP method.
    pub async fn review(&self, authorization: Option<&str>, path: &str, verb: &str) -> Verdict {
        let Some(token) = authorization.and_then(|value| value.strip_prefix("Bearer ")) else {
            return Verdict::Unauthenticated;
        };
        let key: [u8; 32] = Sha256::digest(format!("{verb} {path}\n{token}")).into();
        if let Some((at, verdict)) = self.kept.lock().await.get(&key)
            && at.elapsed() < KEEP
        {
            return *verdict;
        }
        let asked = tokio::time::timeout(PATIENCE, self.ask(token, path, verb)).await;
        let verdict = match asked {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(error)) => {
                tracing::warn!(%error, path, "access review of the metrics port failed");
                return Verdict::Unavailable;
            }
            Err(_) => return Verdict::Unavailable,
        };
        let mut kept = self.kept.lock().await;
        if kept.len() >= KEPT {
            kept.retain(|_, (at, _)| at.elapsed() < KEEP);
        }
        if kept.len() < KEPT {
            kept.insert(key, (Instant::now(), verdict));
        }
        verdict
    }

    async fn ask(&self, token: &str, path: &str, verb: &str) -> Result<Verdict, kube::Error> {
        let spec = TokenReviewSpec { token: Some(token.to_owned()), ..Default::default() };
        let review = TokenReview { spec, ..Default::default() };
        let tokens: Api<TokenReview> = Api::all(self.client.clone());
        let status = tokens.create(&PostParams::default(), &review).await?.status;
        let status = status.unwrap_or_default();
        let Some(user) = status.user.filter(|_| status.authenticated == Some(true)) else {
            return Ok(Verdict::Unauthenticated);
        };
        let accesses: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = access_review(user, path, verb);
        let status = accesses.create(&PostParams::default(), &review).await?.status;
        let allowed = status.is_some_and(|s| s.allowed && s.denied != Some(true));
        Ok(if allowed { Verdict::Allowed } else { Verdict::Forbidden })
    }
}

fn access_review(user: UserInfo, path: &str, verb: &str) -> SubjectAccessReview {
    let attributes =
        NonResourceAttributes { path: Some(path.to_owned()), verb: Some(verb.to_owned()) };
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: user.username,
            groups: user.groups,
            uid: user.uid,
            extra: user.extra,
            non_resource_attributes: Some(attributes),
            ..Default::default()
        },
        ..Default::default()
    }
}
