//! Whether the host of the lease's holder lives, as a candidate sees it.
//!
//! A process that ends or hangs keeps its lease until it runs out: nobody else can tell. A host
//! without power can be told apart, because a living kernel answers every dial, if only by a
//! refusal. Only a host that was heard before counts as silent: where a firewall drops dials to
//! the port the lease alone decides.

use std::{net::IpAddr, time::Duration};

use tokio::time::{Instant, sleep_until};

use crate::ovsdb::dial::{Answer, dial};

/// Metrics of the controller; its host refuses when nothing listens there.
const PORT: u16 = 10660;
const STRIKES: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// Not heard so far.
    Unknown,
    Lives,
    Silent,
}

/// The other controller that leads.
#[derive(Debug, Default)]
pub struct Holder {
    /// Its pod.
    name: String,
    address: Option<IpAddr>,
    heard: bool,
    silent: u32,
}

impl Holder {
    /// Takes notice of who leads; an empty name is nobody.
    pub fn follow(&mut self, name: &str) {
        if self.name != name {
            *self = Holder { name: name.to_owned(), ..Holder::default() };
        }
    }

    /// The pod whose address has to be found.
    pub fn unresolved(&self) -> Option<String> {
        (self.address.is_none() && !self.name.is_empty()).then(|| self.name.clone())
    }

    pub fn resolve(&mut self, address: IpAddr) {
        self.address = Some(address);
    }

    /// Dials once; takes `period` at least, and is as long the limit.
    pub async fn look(&mut self, period: Duration) {
        let end = Instant::now() + period;
        if let Some(address) = self.address {
            let answer = dial((address, PORT), period).await;
            self.observe(answer);
        }
        sleep_until(end).await;
    }

    pub fn observe(&mut self, answer: Answer) {
        match answer {
            Answer::Taken | Answer::Refused => (self.heard, self.silent) = (true, 0),
            Answer::Silence => self.silent = self.silent.saturating_add(1),
        }
    }

    pub fn host(&self) -> Host {
        match (self.heard, self.silent) {
            (false, _) => Host::Unknown,
            (true, STRIKES..) => Host::Silent,
            (true, _) => Host::Lives,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_that_was_heard_falls_silent() {
        let mut holder = Holder::default();
        holder.follow("kube-ovn-controller-1");
        assert_eq!(holder.unresolved().as_deref(), Some("kube-ovn-controller-1"));
        for _ in 0..9 {
            holder.observe(Answer::Silence);
        }
        assert_eq!(holder.host(), Host::Unknown, "a firewall, it may be");
        holder.observe(Answer::Refused);
        assert_eq!(holder.host(), Host::Lives, "the host answers, its program does not");
        for host in [Host::Lives, Host::Lives, Host::Silent] {
            holder.observe(Answer::Silence);
            assert_eq!(holder.host(), host);
        }
        holder.follow("kube-ovn-controller-1");
        assert_eq!(holder.host(), Host::Silent, "the same one still");
        holder.follow("kube-ovn-controller-2");
        assert_eq!(holder.host(), Host::Unknown);
    }
}
