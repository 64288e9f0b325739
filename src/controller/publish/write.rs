//! Sending: one task per object that has something to write, a bounded number of requests at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::{api::core::v1::Event, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch as Body, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Notice, Part, Patch, Target, Wish, decide,
    event::event_object,
    resource::{api, split_key},
};
use crate::store::watch::Seen;

/// Requests in flight.
const AT_ONCE: usize = 32;
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(15);
const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// Attempts to send an Event, which is a courtesy.
const EVENT_ATTEMPTS: u32 = 4;

/// The latest wish for one object and what it was compared with.
#[derive(Clone)]
pub(super) struct Job {
    pub wish: Arc<Wish>,
    pub seen: Arc<Seen>,
}

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("{} {}: {source}", target.0.name(), target.1)]
    Api { target: Target, source: Box<kube::Error> },
    #[error("{} {}: no answer from the API server in {PATIENCE:?}", target.0.name(), target.1)]
    Silence { target: Target },
}

/// What a failed write calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The object is gone, and with it the wish.
    Gone,
    /// The object changed since it was seen: read it and decide anew.
    Conflict,
    /// The API server or the way to it is in trouble: try again with growing delays.
    Retry,
    /// The API server refuses the content: only a change of the wish or of the object helps.
    Fatal,
}

/// Sorts the errors of the API server.
pub fn classify(error: &kube::Error) -> Failure {
    let kube::Error::Api(status) = error else { return Failure::Retry };
    match status.code {
        404 | 410 => Failure::Gone,
        409 => Failure::Conflict,
        // The uid in the patch is that of an object deleted meanwhile.
        422 if status.message.contains("metadata.uid") => Failure::Gone,
        // 401 and 403 heal when tokens and roles are renewed.
        401 | 403 | 408 | 429 | 500.. => Failure::Retry,
        _ => Failure::Fatal,
    }
}

struct Shared {
    client: Client,
    component: String,
    permits: Semaphore,
    /// Objects with a task; `Some` = work that the task has not taken yet.
    jobs: Mutex<HashMap<Target, Option<Job>>>,
}

impl Shared {
    fn jobs(&self) -> MutexGuard<'_, HashMap<Target, Option<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job of a target; without one the task's entry goes.
    fn take(&self, target: &Target) -> Option<Job> {
        let mut jobs = self.jobs();
        let job = jobs.get_mut(target).and_then(Option::take);
        if job.is_none() {
            jobs.remove(target);
        }
        job
    }

    /// Gives work back, unless newer work came meanwhile.
    fn put_back(&self, target: &Target, job: Job) {
        if let Some(slot) = self.jobs().get_mut(target) {
            slot.get_or_insert(job);
        }
    }
}

/// Runs the writes; they end when this is dropped.
pub(super) struct Writer {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Writer {
    pub fn new(client: Client, component: &str) -> Self {
        let shared = Shared {
            client,
            component: component.to_owned(),
            permits: Semaphore::new(AT_ONCE),
            jobs: Mutex::default(),
        };
        Writer { shared: Arc::new(shared), tasks: JoinSet::new() }
    }

    /// Replaces the job of an object.
    pub fn submit(&mut self, target: Target, job: Job) {
        while self.tasks.try_join_next().is_some() {}
        let busy = self.shared.jobs().insert(target.clone(), Some(job)).is_some();
        if !busy {
            self.tasks.spawn(serve(Arc::clone(&self.shared), target));
        }
    }

    /// Sends an Event; given up after a few attempts.
    pub fn announce(&mut self, target: Target, seen: Arc<Seen>, notice: Notice) {
        while self.tasks.try_join_next().is_some() {}
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            for attempt in 0..EVENT_ATTEMPTS {
                match send_event(&shared, &target, &seen, &notice).await {
                    Ok(()) => return,
                    Err(error) if attempt + 1 == EVENT_ATTEMPTS => {
                        tracing::warn!(%error, reason = notice.reason, "event not sent");
                    }
                    Err(_) => sleep(delay(attempt)).await,
                }
            }
        });
    }

    pub fn pending(&self) -> usize {
        self.shared.jobs().len()
    }
}

fn delay(attempt: u32) -> Duration {
    FIRST_DELAY.saturating_mul(1 << attempt.min(16)).min(LONGEST_DELAY)
}

/// Writes one object until nothing is left to write.
async fn serve(shared: Arc<Shared>, target: Target) {
    let mut attempt = 0;
    while let Some(job) = shared.take(&target) {
        let result = match shared.permits.acquire().await {
            Ok(_permit) => write(&shared, &target, &job).await,
            Err(_closed) => return,
        };
        let Err(error) = result else {
            attempt = 0;
            continue;
        };
        let failure = match &error {
            PublishError::Api { source, .. } => classify(source),
            PublishError::Silence { .. } => Failure::Retry,
        };
        match failure {
            Failure::Gone => {}
            Failure::Fatal => tracing::error!(%error, "object not written"),
            Failure::Conflict => match reread(&shared, &target).await {
                Some(seen) => {
                    sleep(delay(attempt)).await;
                    shared.put_back(&target, Job { seen, ..job });
                }
                None => shared.put_back(&target, job),
            },
            Failure::Retry => {
                if attempt == 3 {
                    tracing::warn!(%error, "object not written yet");
                }
                sleep(delay(attempt)).await;
                shared.put_back(&target, job);
            }
        }
        attempt = attempt.saturating_add(1);
    }
}

async fn write(shared: &Shared, target: &Target, job: &Job) -> Result<(), PublishError> {
    let decision = decide(target.0, &job.wish, &job.seen, Timestamp::now());
    for patch in decision.patches {
        send(shared, target, &patch).await?;
    }
    Ok(())
}

async fn send(shared: &Shared, target: &Target, patch: &Patch) -> Result<(), PublishError> {
    let Some((api, name)) = api(&shared.client, target) else { return Ok(()) };
    let parameters =
        PatchParams { field_manager: Some(shared.component.clone()), ..PatchParams::default() };
    let body = Body::Merge(&patch.body);
    let request = async {
        match patch.part {
            // The answer is not used: only metadata is asked for.
            Part::Object => api.patch_metadata(&name, &parameters, &body).await.map(drop),
            Part::Status => api.patch_status(&name, &parameters, &body).await.map(drop),
        }
    };
    answered(target, request).await
}

async fn answered<T>(
    target: &Target,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, PublishError> {
    match timeout(PATIENCE, request).await {
        Ok(result) => result.map_err(|source| PublishError::Api {
            target: target.clone(),
            source: Box::new(source),
        }),
        Err(_) => Err(PublishError::Silence { target: target.clone() }),
    }
}

async fn reread(shared: &Shared, target: &Target) -> Option<Arc<Seen>> {
    let (api, name) = api(&shared.client, target)?;
    let raw = answered(target, api.get(&name)).await.ok()?;
    Some(Arc::new(Seen::of(&raw)))
}

async fn send_event(
    shared: &Shared,
    target: &Target,
    seen: &Seen,
    notice: &Notice,
) -> Result<(), PublishError> {
    let now = Timestamp::now();
    let Some(event) = event_object(target, seen, notice, &shared.component, now) else {
        return Ok(());
    };
    let namespace = split_key(&target.1).0.unwrap_or("default");
    let events: Api<Event> = Api::namespaced(shared.client.clone(), namespace);
    let name = event.metadata.name.clone().unwrap_or_default();
    let Ok(_permit) = shared.permits.acquire().await else { return Ok(()) };
    let parameters = PostParams::default();
    match answered(target, events.create(&parameters, &event)).await {
        Err(PublishError::Api { source, .. }) if is_duplicate(&source) => {}
        other => return other.map(drop),
    }
    let known = answered(target, events.get(&name)).await?;
    let count = known.count.unwrap_or(1).saturating_add(1);
    let body = json!({ "count": count, "lastTimestamp": event.last_timestamp });
    let patch = events.patch(&name, &PatchParams::default(), &Body::Merge(&body)).await;
    patch
        .map(drop)
        .map_err(|source| PublishError::Api { target: target.clone(), source: Box::new(source) })
}

fn is_duplicate(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_already_exists())
}
