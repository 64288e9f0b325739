//! Queueing disciplines, as far as they must be looked at.

use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcMessage},
};

use super::{Error, Netlink};

impl Netlink {
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
