//! Generic netlink families, see <linux/genetlink.h>.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

use super::{Error, netns::enter};
use crate::net::Place;

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;

/// Whether the kernel knows a family (`ovs_datapath` = the openvswitch module works). The kernel
/// loads the module of an unknown family if the host has it.
pub fn has_family(place: &Place, name: &str) -> Result<bool, Error> {
    let object = format!("generic netlink family {name}");
    let reply = enter(place, || ask(name))?.map_err(|e| Error::call(object.clone(), e))?;
    let field = |at: usize| reply.get(at..at + 4).and_then(|b| b.try_into().ok());
    let kind = reply.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes);
    match (kind, field(16).map(i32::from_ne_bytes)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(true),
        (Some(NLMSG_ERROR), Some(code)) => match -code {
            libc::ENOENT => Ok(false),
            errno => Err(Error::call(object, io::Error::from_raw_os_error(errno))),
        },
        (Some(_), _) => Ok(true),
        (None, _) => Err(Error::Reply { object, message: "too short".to_owned() }),
    }
}

fn ask(name: &str) -> io::Result<Vec<u8>> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    let mut reply = Vec::with_capacity(32 << 10);
    socket.send_to(&request(name), &SocketAddr::new(0, 0), 0)?;
    socket.recv_from(&mut reply, 0)?;
    Ok(reply)
}

/// Netlink header, generic header, and the name as a padded attribute.
fn request(name: &str) -> Vec<u8> {
    let attribute = 4 + name.len() + 1;
    let padded = attribute.next_multiple_of(4);
    let length = 16 + 4 + padded;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u32).to_ne_bytes());
    bytes.extend(GENL_ID_CTRL.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    bytes.extend([0; 8]); // sequence, port
    bytes.extend([CTRL_CMD_GETFAMILY, 1, 0, 0]);
    bytes.extend((attribute as u16).to_ne_bytes());
    bytes.extend(CTRL_ATTR_FAMILY_NAME.to_ne_bytes());
    bytes.extend(name.as_bytes());
    bytes.resize(length, 0);
    bytes
}
