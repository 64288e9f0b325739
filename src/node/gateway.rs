//! Probes from inside a pod's namespace: does the gateway answer, does a foreign host own the
//! pod's address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    api::Text,
    host::GatewayCheck,
    kernel::{self, arp, within},
    net::{AddressState, Cidr, Dad, DualStack, Family, Mac, Place},
};

use super::observe::dump;

/// Waits for one answer, growing: the flows are in when the first probe leaves, so it is answered
/// within a millisecond; only a broken path sees the longer ones.
const PATIENCE: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_secs(1),
];

/// Answers of a conflict probe (RFC 5227) come within this time or never.
const CONFLICT_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// Upstream's text: users search for it.
    #[error("IP address {address} has already been used by host with MAC {mac}")]
    Conflict { address: IpAddr, mac: Mac },
    #[error("IPv6 address {0} is a duplicate: another host on the segment has it")]
    Duplicate(IpAddr),
}

/// The pod's end of a NIC, as probes need it.
#[derive(Debug, Clone)]
pub struct PodNic {
    pub netns: Text,
    pub ifname: Text,
    pub mac: Mac,
    pub addresses: DualStack<Cidr>,
}

impl PodNic {
    fn place(&self) -> Place {
        Place::Namespace(self.netns.clone())
    }

    fn source(&self, target: IpAddr) -> Option<IpAddr> {
        self.addresses.get(Family::of(target)).map(|c| c.address)
    }

    async fn ask(
        &self,
        source: Option<IpAddr>,
        target: IpAddr,
        patience: Duration,
    ) -> Result<Option<Mac>, kernel::Error> {
        let query = arp::Query { link: self.ifname.clone(), mac: self.mac, source, target };
        // The probe enters the namespace itself, for its socket only.
        let place = self.place();
        within(Place::Host, move || arp::resolve(&place, &query, patience)).await
    }
}

/// Gateways that have answered a pod of this node lately, by subnet: VPCs may share addresses.
#[derive(Debug, Default)]
pub struct KnownGateways(Mutex<HashMap<(Text, IpAddr), Instant>>);

/// So long a gateway counts as known to work.
const FRESH: Duration = Duration::from_secs(30);

impl KnownGateways {
    pub fn heard(&self, subnet: &Text, gateways: &[IpAddr]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, since| since.elapsed() < FRESH);
        known.extend(gateways.iter().map(|gateway| ((subnet.clone(), *gateway), Instant::now())));
    }

    pub fn forget(&self, subnet: &Text, gateways: &[IpAddr]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(of, gateway), _| of != subnet || !gateways.contains(gateway));
    }

    /// `false` when there is none.
    pub fn all_fresh(&self, subnet: &Text, gateways: &[IpAddr]) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |g: &IpAddr| {
            known.get(&(subnet.clone(), *g)).is_some_and(|since| since.elapsed() < FRESH)
        };
        !gateways.is_empty() && gateways.iter().all(fresh)
    }
}

/// Asks each gateway in turn until it answers; the caller bounds the time. Returns the number of
/// probes; `asking` hears whom it asks. BUG 23: a lenient check really sends its one probe.
pub async fn check_gateways(
    nic: &PodNic,
    gateways: &[IpAddr],
    check: GatewayCheck,
    asking: impl Fn(IpAddr),
) -> Result<u32, ProbeError> {
    let mut probes = 0;
    for gateway in gateways {
        asking(*gateway);
        for round in 0.. {
            if check == GatewayCheck::Skipped {
                break;
            }
            let patience = PATIENCE.get(round).copied().unwrap_or(Duration::from_secs(1));
            let started = Instant::now();
            probes += 1;
            let answer = nic.ask(nic.source(*gateway), *gateway, patience).await?;
            if answer.is_some() || check == GatewayCheck::Lenient {
                break;
            }
            // A send error path that returns early must not spin.
            tokio::time::sleep(patience.saturating_sub(started.elapsed())).await;
        }
    }
    Ok(probes)
}

/// Makes sure that nobody else on a shared segment has the addresses. On an overlay (`Dad::Skip`)
/// that cannot happen and nothing is sent.
pub async fn check_conflicts(nic: &PodNic, dad: Dad) -> Result<(), ProbeError> {
    if dad == Dad::Skip {
        return Ok(());
    }
    if let Some(cidr) = nic.addresses.v4 {
        let address = cidr.address;
        if let Some(mac) = nic.ask(None, address, CONFLICT_PATIENCE).await?
            && mac != nic.mac
        {
            return Err(ProbeError::Conflict { address, mac });
        }
    }
    match nic.addresses.v6 {
        Some(cidr) => await_detection(nic, cidr).await,
        None => Ok(()),
    }
}

/// Waits for the kernel's verdict on an IPv6 address (RFC 4862), woken by its notifications.
async fn await_detection(nic: &PodNic, cidr: Cidr) -> Result<(), ProbeError> {
    let mut monitor = kernel::Monitor::open(&nic.place())?;
    loop {
        let place = nic.place();
        let addresses = within(Place::Host, move || dump(&place)).await?.addresses;
        let seen = addresses.iter().find(|a| a.link == nic.ifname && a.cidr == cidr);
        match seen.map(|a| a.state) {
            Some(AddressState::Tentative) => {}
            Some(AddressState::Duplicate) => return Err(ProbeError::Duplicate(cidr.address)),
            Some(AddressState::Ready) | None => return Ok(()),
        }
        monitor.changed().await?;
    }
}
