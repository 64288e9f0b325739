//! How far a request is: what it waits for, and how long each stage took.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// What an ADD is doing now, for the error when it must stop, and when it got how far.
#[derive(Debug, Default)]
pub struct Progress {
    doing: Mutex<String>,
    timeline: Mutex<Timeline>,
}

impl Progress {
    pub fn set(&self, what: impl Into<String>) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
    }

    pub fn get(&self) -> String {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn reached(&self, stage: &'static str) {
        self.timeline
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .push((stage, Instant::now()));
    }

    pub fn timeline(&self) -> Timeline {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// When a request reached each of its stages.
#[derive(Debug, Clone, Default)]
pub struct Timeline(Vec<(&'static str, Instant)>);

/// Milliseconds between the stages: `annotations=12 links=3 flows=41 gateway=1`.
impl std::fmt::Display for Timeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, pair) in self.0.windows(2).enumerate() {
            if let [(_, before), (stage, at)] = pair {
                let blank = if i > 0 { " " } else { "" };
                let elapsed = at.saturating_duration_since(*before);
                write!(f, "{blank}{stage}={}", elapsed.as_millis())?;
            }
        }
        Ok(())
    }
}
