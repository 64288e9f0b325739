//! Generic netlink families, see <linux/genetlink.h>, and the one command of the family
//! `ovs_datapath` that is needed without Open vSwitch (<linux/openvswitch.h>).

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

use super::{Error, missing_is_fine, netns::enter};
use crate::net::Place;

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
/// The headers of netlink and generic netlink.
const HEADERS: usize = 16 + 4;

/// The family of the openvswitch module.
pub const OVS_DATAPATH: &str = "ovs_datapath";
const OVS_DATAPATH_VERSION: u8 = 2;
const OVS_DP_CMD_DEL: u8 = 2;
const OVS_DP_ATTR_NAME: u16 = 1;

/// Whether the kernel knows a family ([`OVS_DATAPATH`] = the openvswitch module works). The kernel
/// loads the module of an unknown family if the host has it.
pub fn has_family(place: &Place, name: &str) -> Result<bool, Error> {
    Ok(family_id(place, name)?.is_some())
}

fn family_id(place: &Place, name: &str) -> Result<Option<u16>, Error> {
    let object = format!("generic netlink family {name}");
    let attribute = attribute(CTRL_ATTR_FAMILY_NAME, name);
    let request = message(GENL_ID_CTRL, NLM_F_REQUEST, [CTRL_CMD_GETFAMILY, 1], &attribute);
    let reply = enter(place, || ask(&request))?;
    match reply.and_then(|reply| answer(&reply).map(<[u8]>::to_vec)) {
        Ok(attributes) => match find_u16(&attributes, CTRL_ATTR_FAMILY_ID) {
            Some(id) => Ok(Some(id)),
            None => Err(Error::Reply { object, message: "no family id".to_owned() }),
        },
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(Error::call(object, e)),
    }
}

/// Removes a datapath of the kernel with all its ports. A missing one is fine.
pub fn delete_datapath(place: &Place, name: &str) -> Result<(), Error> {
    let Some(family) = family_id(place, OVS_DATAPATH)? else { return Ok(()) };
    // The datapath is named by an attribute, so the index in the family's own header is 0.
    let mut payload = vec![0; 4];
    payload.extend(attribute(OVS_DP_ATTR_NAME, name));
    let command = [OVS_DP_CMD_DEL, OVS_DATAPATH_VERSION];
    let request = message(family, NLM_F_REQUEST | NLM_F_ACK, command, &payload);
    let deleted = enter(place, || ask(&request).and_then(|reply| answer(&reply).map(|_| ())))?;
    missing_is_fine(deleted.map_err(|e| Error::call(format!("datapath {name}"), e)))
}

fn ask(request: &[u8]) -> io::Result<Vec<u8>> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    let mut reply = Vec::with_capacity(32 << 10);
    socket.send_to(request, &SocketAddr::new(0, 0), 0)?;
    socket.recv_from(&mut reply, 0)?;
    Ok(reply)
}

/// What follows the headers of a reply; nothing for an acknowledgement.
fn answer(reply: &[u8]) -> io::Result<&[u8]> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "the reply is too short");
    if u16_at(reply, 4).ok_or_else(short)? != NLMSG_ERROR {
        return reply.get(HEADERS..).ok_or_else(short);
    }
    let code = reply.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match code.ok_or_else(short)? {
        0 => Ok(&[]),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn find_u16(mut attributes: &[u8], wanted: u16) -> Option<u16> {
    loop {
        let (length, kind) = (usize::from(u16_at(attributes, 0)?), u16_at(attributes, 2)?);
        if kind == wanted {
            return u16_at(attributes, 4);
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

/// Netlink header, generic header (`command` and version), payload.
fn message(kind: u16, flags: u16, command: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let length = HEADERS + payload.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]); // sequence, port
    bytes.extend([command[0], command[1], 0, 0]);
    bytes.extend(payload);
    bytes
}

/// A text as a padded attribute.
fn attribute(kind: u16, text: &str) -> Vec<u8> {
    let length = 4 + text.len() + 1;
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(text.as_bytes());
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_names_the_datapath_by_attribute() {
        let mut payload = vec![0; 4];
        payload.extend(attribute(OVS_DP_ATTR_NAME, "ovs-system"));
        let bytes = message(33, NLM_F_REQUEST | NLM_F_ACK, [OVS_DP_CMD_DEL, 2], &payload);
        assert_eq!(bytes.len(), 40);
        assert_eq!((u16_at(&bytes, 4), u16_at(&bytes, 6)), (Some(33), Some(5)));
        assert_eq!(bytes[16..24], [2, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(u16_at(&bytes, 24), Some(15));
        assert_eq!(&bytes[28..], b"ovs-system\0\0");
    }

    #[test]
    fn replies_are_an_error_an_acknowledgement_or_attributes() {
        let error = |code: i32| {
            let mut bytes = message(NLMSG_ERROR, 0, [0, 0], &[]);
            bytes.splice(16..20, code.to_ne_bytes());
            bytes
        };
        assert_eq!(answer(&error(0)).unwrap(), b"");
        let missing = answer(&error(-libc::ENODEV)).unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::ENODEV));
        assert!(answer(&[0; 5]).is_err());
        let mut attributes = attribute(CTRL_ATTR_FAMILY_NAME, "ovs_datapath");
        attributes.extend([6, 0, 1, 0, 34, 0, 0, 0]);
        let reply = message(GENL_ID_CTRL, 0, [1, 2], &attributes);
        assert_eq!(find_u16(answer(&reply).unwrap(), CTRL_ATTR_FAMILY_ID), Some(34));
        assert_eq!(find_u16(&attribute(2, "x"), CTRL_ATTR_FAMILY_ID), None);
    }
}
