//! Takes Open vSwitch off a node: chassis, bridges, datapaths, files. NICs get back what bridges
//! carried for them. Packet filter rules and ipsets of the node agent are removed by others.

use std::{fs, io, path::Path, time::Duration};

use super::{
    files::FileError,
    other_datapath, ovs_arguments,
    ovs_paths::OvsPaths,
    rpc::RpcError,
    start_ovs::end_all,
    takeover::{self, Leave, Owner},
    uplink::{self, Carried},
    uplink_apply::{self, UplinkError},
    vswitch::{BridgeRow, Switch},
};
use crate::net::Place;

/// Links that Open vSwitch or OVN leave behind when they do not end in order.
const LINKS: [&str; 6] =
    ["genev_sys_6081", "vxlan_sys_4789", "ovs-netdev", "br-int", "ovn0", "mirror0"];
/// Folders that are emptied; they are mounts, so they stay themselves.
const FOLDERS: [&str; 7] = [
    "/var/run/openvswitch",
    "/var/run/ovn",
    "/etc/openvswitch",
    "/etc/ovn",
    "/var/log/openvswitch",
    "/var/log/ovn",
    "/etc/ovs_ipsec_keys",
];

/// Removes everything; what resists is returned, and the rest is removed all the same.
pub async fn run(paths: &OvsPaths, root: &str, place: &Place) -> Result<Vec<String>, FileError> {
    let mut findings = Vec::new();
    // From now on the container neither restarts nor stops anything.
    Owner::claim(paths)?;
    // The chassis goes from the SB database while it can still be reached.
    let controller = ovs_arguments::controller_pidfile(paths);
    takeover::end_daemon(&controller, "ovn-controller", Leave::Cleanup.controller()).await;
    match remove_bridges(paths, place).await {
        Ok(()) => {}
        // Nothing runs any more: a repeated run.
        Err(UplinkError::Database(RpcError::Connect(_))) => {}
        Err(error) => findings.push(error.to_string()),
    }
    end_all(paths, Leave::Cleanup).await;
    // vswitchd leaves it also when it cleans up, and no link of it can be deleted by name.
    if let Err(error) = other_datapath::remove_kernel_datapath(place).await {
        findings.push(error.to_string());
    }
    uplink_apply::delete_links(place, LINKS.map(str::to_owned).to_vec()).await;
    for folder in FOLDERS {
        let path = format!("{root}{folder}");
        if let Err(error) = empty(Path::new(&path)) {
            findings.push(format!("{path}: {error}"));
        }
    }
    Ok(findings)
}

/// Gives NICs their addresses back, then removes all bridges, and with them the tunnels.
async fn remove_bridges(paths: &OvsPaths, place: &Place) -> Result<(), UplinkError> {
    let mut switch = Switch::open(paths).await?;
    let bridges = switch.bridges().await?;
    for bridge in bridges.iter().filter(|bridge| bridge.is_ours()) {
        if let Some(carried) = carried_by(place, &mut switch, bridge).await? {
            tracing::info!(bridge = bridge.name, nic = %carried.uplink, "giving back");
            uplink_apply::give_back(place, &mut switch, bridge, &carried).await?;
        }
    }
    switch.remove_bridges(&bridges).await?;
    // ovs-vswitchd removes ports and tunnel devices as it sees the change.
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

/// The record of the tunnel bridge; of a provider bridge, what its link holds now.
async fn carried_by(
    place: &Place,
    switch: &mut Switch,
    bridge: &BridgeRow,
) -> Result<Option<Carried>, UplinkError> {
    if bridge.carried().is_some() {
        return Ok(bridge.carried());
    }
    let Some(nic) = switch.vendor_ports(bridge).await?.into_iter().next() else {
        return Ok(None);
    };
    let facts = uplink_apply::observe(place).await?;
    let mut held = uplink::held_by(&bridge.name, &facts);
    held.uplink = nic.as_str().into();
    Ok(Some(held).filter(|held| !held.is_empty()))
}

fn empty(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
