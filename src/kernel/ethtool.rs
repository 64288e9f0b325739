//! Offload switches of links, see ethtool(8).

use super::{
    Error,
    netns::{EthtoolValue, enter, ethtool_value},
};
use crate::net::Place;

// linux/ethtool.h
const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_STXCSUM: u32 = 0x17;

fn call(place: &Place, link: &str, command: u32) -> Result<u32, Error> {
    let mut value = EthtoolValue { command, data: 0 };
    enter(place, || ethtool_value(link, &mut value))?
        .map_err(|e| Error::call(format!("tx checksum offload of link {link}"), e))?;
    Ok(value.data)
}

/// Whether the kernel may leave transmit checksums to the device.
pub fn has_tx_checksum(place: &Place, link: &str) -> Result<bool, Error> {
    call(place, link, ETHTOOL_GTXCSUM).map(|data| data != 0)
}

/// `ethtool -K <link> tx off`: a userspace datapath gets frames whose checksums nobody fills in
/// otherwise, and TCP stalls.
pub fn disable_tx_checksum(place: &Place, link: &str) -> Result<(), Error> {
    call(place, link, ETHTOOL_STXCSUM).map(|_| ())
}
