//! How long a leader may be unable to commit before it makes room for another one. A state machine
//! without I/O: the loop tells once a second how things stand.
//!
//! A leader whose transactions hang is broken and its process starts anew. One that does not reach
//! the databases is no use either, but only where another controller might reach them: with a
//! single database all controllers are in the same position, and waiting is all that is left.

use std::time::{Duration, Instant};

/// Leadership is given up when nothing could be committed for this long although something waits.
pub const STUCK: Duration = Duration::from_secs(30);

/// Whether other controllers run beside another member of the databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rivals {
    None,
    Some,
}

/// How the leader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing to commit now: all is applied, or it waits for the API server, for another row, for
    /// a back-off or for the operator.
    Content,
    /// Something is under way or could be sent.
    Behind,
    /// Not connected to the northbound database.
    CutOff,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    GoOn,
    /// Connected, and still nothing goes through: start anew.
    Stuck,
    /// Let another controller try; this one stays a candidate.
    StandBack,
}

#[derive(Debug)]
pub struct Patience {
    rivals: Rivals,
    /// Since when nothing could be committed.
    since: Option<Instant>,
}

impl Patience {
    pub fn new(rivals: Rivals) -> Self {
        Patience { rivals, since: None }
    }

    /// A transaction went through.
    pub fn committed(&mut self) {
        self.since = None;
    }

    /// A connection that comes and goes without a commit in between does not start the clock anew.
    pub fn observe(&mut self, state: State, now: Instant) -> Verdict {
        if state == State::Content {
            self.since = None;
            return Verdict::GoOn;
        }
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) <= STUCK {
            return Verdict::GoOn;
        }
        match (state, self.rivals) {
            (State::Behind, _) => Verdict::Stuck,
            (State::CutOff, Rivals::Some) => Verdict::StandBack,
            (State::CutOff, Rivals::None) | (State::Content, _) => Verdict::GoOn,
        }
    }
}
