//! Moves addresses and routes between a NIC and the bridge port that stands in for it.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    rpc::RpcError,
    uplink::{self, BRIDGE, Carried, Facts, Refusal},
    vswitch::{BridgeRow, Switch},
};
use crate::{
    kernel::{self, Netlink, ethtool, iptables},
    net::{Dad, Family, LinkChange, LinkState, Mac, Place},
};

/// ovs-vswitchd makes the tap device after it has seen the new bridge.
const LINK_LIMIT: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{0} has no address that tunnels could use; give it one")]
    NoAddress(std::sync::Arc<str>),
    #[error("ovs-vswitchd did not make {BRIDGE} within 15 s; see its log")]
    NoBridge,
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    #[error(transparent)]
    Database(#[from] RpcError),
}

/// Runs blocking kernel calls aside.
pub(super) async fn aside<R: Send + 'static>(
    place: &Place,
    work: impl FnOnce(&Place, &mut Netlink) -> Result<R, kernel::Error> + Send + 'static,
) -> Result<R, kernel::Error> {
    let place = place.clone();
    let done = tokio::task::spawn_blocking(move || work(&place, &mut Netlink::open(&place)?));
    done.await.unwrap_or_else(|e| {
        let (object, message) = ("kernel calls".to_owned(), e.to_string());
        Err(kernel::Error::Reply { object, message })
    })
}

pub async fn observe(place: &Place) -> Result<Facts, kernel::Error> {
    aside(place, |_, netlink| {
        let links = netlink.links()?;
        let addresses = netlink.addresses_of(&links)?;
        let routes = netlink.routes_of(&links)?;
        Ok(Facts { links, addresses, routes })
    })
    .await
}

/// Takes the chosen NIC into the bridge; repeatable at any time. `choose` sees the kernel and
/// what was recorded.
pub async fn establish(
    place: &Place,
    switch: &mut Switch,
    choose: impl FnOnce(&Facts, Option<&Carried>) -> Result<std::sync::Arc<str>, Refusal>,
) -> Result<Carried, UplinkError> {
    let bridge = switch.bridge(BRIDGE).await?;
    let recorded = bridge.as_ref().and_then(BridgeRow::carried);
    let mut facts = observe(place).await?;
    let nic = choose(&facts, recorded.as_ref())?;
    if let (Some(former), Some(bridge)) = (&recorded, &bridge)
        && former.uplink != nic
    {
        give_back(place, switch, bridge, former).await?;
        facts = observe(place).await?;
    }
    let recorded = recorded.filter(|former| former.uplink == nic);
    let carried = uplink::carried(&nic, &facts, recorded.as_ref());
    if carried.is_empty() {
        return Err(UplinkError::NoAddress(nic));
    }
    let mac: Option<Mac> = facts.links.iter().find(|l| l.name == nic).and_then(|l| l.mac);
    // The record comes first: from here on nothing is lost, whoever dies.
    switch.put_uplink(&carried, mac).await?;
    wait_for_bridge(place).await?;
    let (work, nic) = (carried.clone(), nic.clone());
    aside(place, move |place, netlink| {
        move_addresses(netlink, &work, &nic, BRIDGE)?;
        for link in [BRIDGE, &*nic] {
            // Some drivers cannot; then they do not leave sums open either.
            if let Err(error) = ethtool::disable_tx_checksum(place, link) {
                tracing::debug!(link, %error, "tx checksum offload stays as it is");
            }
        }
        filter(place, |listing| Some(uplink::drop_batch(&nic, listing)));
        Ok(())
    })
    .await?;
    Ok(carried)
}

/// Gives the NIC its addresses and routes back and forgets the record.
pub async fn give_back(
    place: &Place,
    switch: &mut Switch,
    bridge: &BridgeRow,
    carried: &Carried,
) -> Result<(), UplinkError> {
    let (work, from) = (carried.clone(), bridge.name.clone());
    aside(place, move |place, netlink| {
        filter(place, uplink::undrop_batch);
        match netlink.link(&work.uplink)? {
            Some(_) => move_addresses(netlink, &work, &from, &work.uplink),
            // The NIC is gone (unplugged, renamed): nothing can be given back.
            None => Ok(()),
        }
    })
    .await?;
    switch.forget_carried(bridge).await?;
    Ok(())
}

/// Each address is on one of the links at any time. A missing source is fine.
fn move_addresses(
    netlink: &mut Netlink,
    carried: &Carried,
    from: &str,
    to: &str,
) -> Result<(), kernel::Error> {
    let up = LinkChange { state: Some(LinkState::Up), ..LinkChange::default() };
    netlink.set_link(to, &up)?;
    for address in &carried.addresses {
        netlink.add_address(to, *address, Dad::Skip)?;
    }
    for route in carried.routes_over(to) {
        // One route that the kernel no longer accepts must not keep the others away.
        if let Err(error) = netlink.replace_route(&route) {
            tracing::warn!(?route, %error, "route not moved");
        }
    }
    for address in &carried.addresses {
        netlink.remove_address(from, *address)?;
    }
    // The last address of a link takes its routes with it, also those that were just moved when
    // the kernel kept the former copy.
    for route in carried.routes_over(to) {
        if let Err(error) = netlink.replace_route(&route) {
            tracing::debug!(?route, %error, "route not moved");
        }
    }
    match netlink.set_link(from, &up) {
        Err(e) if e.is_missing() => Ok(()),
        other => other,
    }
}

/// Changes table `raw` of both families. Without iptables the kernel answers some frames twice:
/// a nuisance, no reason to stay without tunnels.
fn filter(place: &Place, batch: impl Fn(&str) -> Option<String> + Sync) {
    let change = || -> Result<(), kernel::Error> {
        let backend = iptables::detect_backend()?;
        for family in Family::BOTH {
            let listing = iptables::save(backend, family)?;
            if let Some(batch) = batch(&listing) {
                iptables::restore(backend, family, &batch)?;
            }
        }
        Ok(())
    };
    let result = kernel::netns::enter(place, change).and_then(|result| result);
    if let Err(error) = result {
        tracing::warn!(%error, "the kernel still reads the NIC of the userspace datapath");
    }
}

async fn wait_for_bridge(place: &Place) -> Result<(), UplinkError> {
    let deadline = Instant::now() + LINK_LIMIT;
    while aside(place, |_, netlink| netlink.link(BRIDGE)).await?.is_none() {
        if Instant::now() > deadline {
            return Err(UplinkError::NoBridge);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Records what an administrator has changed on the bridge since. Only while the bridge holds
/// addresses: a tap device that died says nothing.
pub async fn refresh_record(place: &Place, switch: &mut Switch) -> Result<(), UplinkError> {
    let Some(bridge) = switch.bridge(BRIDGE).await? else { return Ok(()) };
    let Some(recorded) = bridge.carried() else { return Ok(()) };
    let facts = observe(place).await?;
    let mut now = uplink::held_by(BRIDGE, &facts);
    now.uplink = recorded.uplink.clone();
    now.routes = now.routes_over(&now.uplink);
    let whole = uplink::held_by(&recorded.uplink, &facts).is_empty();
    if whole && !now.is_empty() && now.to_external_ids() != recorded.to_external_ids() {
        let mac = facts.links.iter().find(|l| l.name == now.uplink).and_then(|l| l.mac);
        switch.put_uplink(&now, mac).await?;
    }
    Ok(())
}

/// Removes links by name; missing ones are fine, and one that resists keeps no other.
pub async fn delete_links(place: &Place, names: Vec<String>) {
    let deleted = aside(place, move |_, netlink| {
        for name in names {
            if let Err(error) = netlink.delete_link(&name) {
                tracing::warn!(link = name, %error, "a link stays");
            }
        }
        Ok(())
    });
    if let Err(error) = deleted.await {
        tracing::warn!(%error, "links stay");
    }
}
