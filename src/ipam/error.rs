use std::net::IpAddr;

use crate::{
    api::Text,
    net::{Cidr, DualStack, Mac},
};

/// Why an allocation or a change was refused. The first word is the one that users of upstream
/// find in events and logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    #[error("AddressOutOfRange: {address} cannot be assigned in subnet {subnet}: {reason}")]
    AddressOutOfRange { subnet: Text, address: String, reason: String },
    #[error("AddressConflict: {address} of subnet {subnet} is held by {holder}")]
    AddressConflict { subnet: Text, address: IpAddr, holder: String },
    #[error("AddressConflict: MAC {mac} in subnet {subnet} is held by {holder}")]
    MacConflict { subnet: Text, mac: Mac, holder: String },
    #[error("AddressConflict: port {port} belongs to {owner}")]
    PortTaken { port: Text, owner: Text },
    #[error("AddressConflict: the free addresses of subnet {subnet} are all to be avoided")]
    OnlyAvoided { subnet: Text },
    #[error("NoAvailableAddress: {reason} in subnet {subnet}")]
    NoAvailableAddress { subnet: Text, reason: String },
    #[error("NoSubnet: subnet {subnet} does not exist")]
    NoSubnet { subnet: Text },
    #[error("CIDRInvalid: subnet {subnet}: {reason}")]
    CidrInvalid { subnet: Text, reason: String },
    /// The range of the subnet changes: addresses that the next one lacks are not given any more.
    #[error(
        "NoAvailableAddress: subnet {subnet} moves from {now} to {next} when the last address that \
         {next} lacks is given back, and gives none of those until then"
    )]
    Leaving { subnet: Text, now: DualStack<Cidr>, next: DualStack<Cidr> },
    /// A changed CIDR would leave these outside; nothing was changed.
    #[error(
        "CIDRInvalid: subnet {subnet}: outside of the new CIDR, or its gateway, are {}",
        list(in_the_way)
    )]
    InTheWay { subnet: Text, in_the_way: Vec<(IpAddr, Text)> },
    #[error("CIDRInvalid: subnet {subnet}: entry {entry} of IPPool {pool} is outside of it")]
    PoolInTheWay { subnet: Text, pool: Text, entry: String },
    #[error("conflict IPs of IPPool {pool} in subnet {subnet}: {ranges} belong to IPPool {other}")]
    PoolConflict { subnet: Text, pool: Text, other: Text, ranges: String },
    #[error("IPPool {pool} belongs to subnet {subnet}, which cannot be changed")]
    PoolElsewhere { pool: Text, subnet: Text },
}

/// The first ten, then a count: one message must not carry a whole subnet.
fn list(in_the_way: &[(IpAddr, Text)]) -> String {
    let shown: Vec<String> =
        in_the_way.iter().take(10).map(|(ip, port)| format!("{ip} ({port})")).collect();
    match in_the_way.len().saturating_sub(10) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
