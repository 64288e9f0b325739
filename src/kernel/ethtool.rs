//! Offload switches of links, see ethtool(8).

use super::{
    Error, Netlink,
    netns::{EthtoolValue, control_socket, enter, ethtool_value},
};
use crate::net::Place;

// linux/ethtool.h
const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_STXCSUM: u32 = 0x17;

fn call(socket: &socket2::Socket, link: &str, command: u32) -> Result<u32, Error> {
    let mut value = EthtoolValue { command, data: 0 };
    ethtool_value(socket, link, &mut value).map_err(|e| failed(link, e))?;
    Ok(value.data)
}

fn failed(link: &str, error: std::io::Error) -> Error {
    Error::call(format!("tx checksum offload of link {link}"), error)
}

fn call_in(place: &Place, link: &str, command: u32) -> Result<u32, Error> {
    let socket = enter(place, control_socket)?.map_err(|e| failed(link, e))?;
    call(&socket, link, command)
}

impl Netlink {
    /// [`disable_tx_checksum`] in the namespace of this socket, without entering it again.
    pub fn disable_tx_checksum(&mut self, link: &str) -> Result<(), Error> {
        call(self.control(), link, ETHTOOL_STXCSUM).map(|_| ())
    }
}

/// Whether the kernel may leave transmit checksums to the device.
pub fn has_tx_checksum(place: &Place, link: &str) -> Result<bool, Error> {
    call_in(place, link, ETHTOOL_GTXCSUM).map(|data| data != 0)
}

/// `ethtool -K <link> tx off`: a userspace datapath gets frames whose checksums nobody fills in
/// otherwise, and TCP stalls.
pub fn disable_tx_checksum(place: &Place, link: &str) -> Result<(), Error> {
    call_in(place, link, ETHTOOL_STXCSUM).map(|_| ())
}
