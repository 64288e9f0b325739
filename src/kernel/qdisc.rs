//! Queueing disciplines, as far as they must be looked at.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcMessage},
};

use super::{Error, Netlink};

const PAUSE: Duration = Duration::from_millis(10);

impl Netlink {
    /// Waits until the root queueing discipline of a link is not of this kind; the kernel tells
    /// nobody of its changes. A missing link is fine.
    pub fn await_other_qdisc(
        &mut self,
        link: &str,
        kind: &str,
        limit: Duration,
    ) -> Result<(), Error> {
        let started = Instant::now();
        loop {
            match self.root_qdisc(link) {
                Err(error) if error.is_missing() => return Ok(()),
                Err(error) => return Err(error),
                Ok(found) if found.as_deref() != Some(kind) => return Ok(()),
                Ok(_) if started.elapsed() > limit => {
                    let object = format!("queueing discipline {kind} of {link}");
                    return Err(Error::call(object, io::Error::from(io::ErrorKind::TimedOut)));
                }
                Ok(_) => thread::sleep(PAUSE),
            }
        }
    }

    /// Kind of the root queueing discipline of a link (`noqueue`, `htb`, `netem`); `None` when it
    /// has none.
    pub fn root_qdisc(&mut self, link: &str) -> Result<Option<String>, Error> {
        let index = self.index(link)?;
        let request = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let rows = self.dump("queueing disciplines", request)?;
        Ok(rows.into_iter().find_map(|row| {
            let RouteNetlinkMessage::NewQueueDiscipline(message) = row else { return None };
            let own = u32::try_from(message.header.index) == Ok(index);
            if !own || message.header.parent != TcHandle::ROOT {
                return None;
            }
            message.attributes.into_iter().find_map(|attribute| match attribute {
                TcAttribute::Kind(kind) => Some(kind),
                _ => None,
            })
        }))
    }
}
