//! A quick end for connections to hosts without power.
//!
//! Such a host says nothing, and neither does a server that compacts a large database: the usual
//! probe is patient with both (twice 10 s). What tells them apart is the kernel, which answers for
//! a busy program. So where another member could serve, one that was quiet for a moment is asked for
//! a sign of life; if that fails its host is dialled, and three dials without any answer end the
//! connection: 5 s after the power went, not 20. Servers that live are never dialled while idle,
//! only asked.

use std::time::Duration;

use tokio::time::Instant;

use super::dial::Answer;

/// A server quiet for so long is asked.
const QUIET: Duration = Duration::from_millis(1500);
/// It has so long to answer before its host is dialled.
const GRACE: Duration = Duration::from_millis(500);
/// Limit of a dial: one lost packet is sent again after a second, and counts as silence.
pub const DIAL: Duration = Duration::from_secs(1);
/// A host that answers for a busy server is dialled again after this.
const BUSY: Duration = Duration::from_secs(5);
const STRIKES: u32 = 3;

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Ask,
    Dial,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    GoOn,
    HostSilent,
}

/// State of the looks at one server.
#[derive(Debug, Default)]
pub struct Glance {
    /// The last look, and when the next one is due unless something is read before.
    looked: Option<(Instant, Instant)>,
    silent: u32,
}

impl Glance {
    /// When [`Self::act`] is to be called.
    pub fn due(&self, last_read: Instant) -> Instant {
        match self.looked {
            Some((at, next)) if at >= last_read => next,
            _ => last_read + QUIET,
        }
    }

    pub fn act(&mut self, last_read: Instant, now: Instant) -> Act {
        let asked = self.looked.is_some_and(|(at, _)| at >= last_read);
        if asked {
            // The answer decides when the next one is due.
            self.looked = Some((now, now + BUSY));
            return Act::Dial;
        }
        self.looked = Some((now, now + GRACE));
        self.silent = 0;
        Act::Ask
    }

    /// Takes the answer to a dial.
    pub fn observe(&mut self, answer: Answer, now: Instant) -> Verdict {
        if answer != Answer::Silence {
            self.silent = 0;
            self.looked = Some((now, now + BUSY));
            return Verdict::GoOn;
        }
        self.silent += 1;
        self.looked = Some((now, now));
        if self.silent < STRIKES { Verdict::GoOn } else { Verdict::HostSilent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_host_without_power_is_given_up_after_three_silent_dials() {
        let (mut glance, read) = (Glance::default(), Instant::now());
        assert_eq!(glance.due(read), read + MS(1500));
        assert_eq!(glance.act(read, read + MS(1500)), Act::Ask);
        assert_eq!(glance.due(read), read + MS(2000));
        let mut now = read + MS(2000);
        for verdict in [Verdict::GoOn, Verdict::GoOn, Verdict::HostSilent] {
            assert_eq!(glance.act(read, now), Act::Dial);
            now += DIAL;
            assert_eq!(glance.observe(Answer::Silence, now), verdict);
            assert_eq!(glance.due(read), now);
        }
        assert_eq!(now, read + MS(5000));
    }

    #[test]
    fn a_busy_server_whose_host_answers_is_left_to_the_usual_probe() {
        let (mut glance, read) = (Glance::default(), Instant::now());
        glance.act(read, read + MS(1500));
        for answer in [Answer::Silence, Answer::Silence, Answer::Taken, Answer::Refused] {
            assert_eq!(glance.act(read, read + MS(3000)), Act::Dial);
            assert_eq!(glance.observe(answer, read + MS(4000)), Verdict::GoOn);
        }
        assert_eq!(glance.due(read), read + MS(4000) + BUSY);
    }

    #[test]
    fn whatever_is_read_begins_anew() {
        let (mut glance, read) = (Glance::default(), Instant::now());
        glance.act(read, read + MS(1500));
        glance.act(read, read + MS(2000));
        glance.observe(Answer::Silence, read + MS(3000));
        let later = read + MS(3100);
        assert_eq!(glance.due(later), later + MS(1500));
        assert_eq!(glance.act(later, later + MS(1500)), Act::Ask);
        assert_eq!(glance.silent, 0);
    }
}
