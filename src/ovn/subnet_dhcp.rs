//! DHCP of a subnet (ovn-nb(5), DHCP_Options): one row per family, which the ports of its pods
//! refer to.

use crate::{
    api::{Map, Settings, Subnet, Text},
    net::Family,
    ovsdb::{
        row::{Fact, RowBuilder},
        schema::nb,
    },
    store::{Output, View},
};

use super::{VENDOR, keys, validity};

/// Link-local, so that it is nobody else's.
const SERVER_ID: &str = "169.254.0.254";

pub fn desired(view: &View<'_>, name: &str) -> Output {
    let (Some(subnet), Some(settings)) =
        (validity::valid_subnet(view, name).filter(|s| s.is_ovn()), view.get::<Settings>(""))
    else {
        return Output::default();
    };
    let Some(dhcp) = &subnet.dhcp else { return Output::default() };
    let facts = subnet.cidrs.families().map(|family| {
        let options = match family {
            Family::V4 => v4_options(subnet, &dhcp.v4, settings),
            Family::V6 => v6_options(subnet, &dhcp.v6),
        };
        row(subnet, family, options)
    });
    Output { facts: facts.collect(), ..Output::default() }
}

fn row(subnet: &Subnet, family: Family, options: Map) -> Fact {
    let protocol = match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    let cidr = subnet.cidrs.get(family).map(|c| c.to_string()).unwrap_or_default();
    RowBuilder::new(&keys::dhcp_options(&subnet.name, family))
        .set(nb::dhcp_options::CIDR, cidr)
        .map(nb::dhcp_options::OPTIONS, options)
        .map(
            nb::dhcp_options::EXTERNAL_IDS,
            [("ls", &*subnet.name), ("protocol", protocol), VENDOR],
        )
        .fact()
}

/// A stable MAC of the server: a random one would make clients forget it after a rebuild.
fn server_mac(subnet: &Subnet) -> Text {
    keys::stable_mac(&format!("dhcp-server:{}", subnet.name)).to_string().into()
}

fn v4_options(subnet: &Subnet, given: &Map, settings: &Settings) -> Map {
    let mut options = Map::from([
        ("lease_time".into(), "3600".into()),
        ("server_id".into(), SERVER_ID.into()),
        ("server_mac".into(), server_mac(subnet)),
        ("mtu".into(), mtu(subnet, settings).to_string().into()),
    ]);
    if let Some(gateway) = &subnet.gateways.v4 {
        options.insert("router".into(), gateway.to_string().into());
    }
    options.extend(given.iter().map(|(k, v)| (k.clone(), quoted(k, v))));
    options
}

fn v6_options(subnet: &Subnet, given: &Map) -> Map {
    let mut options = Map::from([("server_id".into(), server_mac(subnet))]);
    options.extend(given.iter().map(|(k, v)| (k.clone(), quoted(k, v))));
    options
}

/// OVN wants texts in quotes of their own.
fn quoted(key: &str, value: &Text) -> Text {
    let text = ["domain_name", "hostname", "bootfile_name", "path_prefix", "tftp_server"]
        .contains(&key)
        && !value.starts_with('"');
    if text { format!("\"{value}\"").into() } else { value.clone() }
}

/// MTU of the pods: as given, that of the wire on a vlan, else what the tunnel leaves of it.
fn mtu(subnet: &Subnet, settings: &Settings) -> u32 {
    const WIRE: u32 = 1500;
    if let Some(mtu) = subnet.mtu {
        return mtu;
    }
    if subnet.vlan.is_some() {
        return WIRE;
    }
    WIRE - match &*settings.network_type {
        "vxlan" => 50,
        "stt" => 72,
        _ => 100,
    }
}
