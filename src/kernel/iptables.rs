//! Packet filter rules through iptables-save(8) and iptables-restore(8), one table batch per call.

use super::{Error, program::run};
use crate::net::Family;

/// Which of the two rule stores of the kernel is spoken to. Both are in effect at the same time,
/// so all programs on a node should use one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Nft,
    Legacy,
}

const WAIT: &str = "--wait=5";

fn program(backend: Backend, family: Family, save: [&'static str; 4]) -> &'static str {
    match (backend, family) {
        (Backend::Nft, Family::V4) => save[0],
        (Backend::Nft, Family::V6) => save[1],
        (Backend::Legacy, Family::V4) => save[2],
        (Backend::Legacy, Family::V6) => save[3],
    }
}

const SAVE: [&str; 4] =
    ["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"];
const RESTORE: [&str; 4] = [
    "iptables-nft-restore",
    "ip6tables-nft-restore",
    "iptables-legacy-restore",
    "ip6tables-legacy-restore",
];

/// All tables of one family with packet and byte counters.
pub fn save(backend: Backend, family: Family) -> Result<String, Error> {
    run(program(backend, family, SAVE), &["-c"], "")
}

/// Applies a batch; each table in it is applied as a whole or not at all.
pub fn restore(backend: Backend, family: Family, batch: &str) -> Result<(), Error> {
    let wait: &[&str] = match backend {
        Backend::Nft => &["--noflush"],
        // Only the legacy store has a lock (/run/xtables.lock).
        Backend::Legacy => &["--noflush", WAIT],
    };
    run(program(backend, family, RESTORE), wait, batch).map(|_| ())
}

/// The store that the other programs of the node use: the one where kubelet or kube-proxy left
/// its hint chain in `mangle`, nft asked first; else the one with more rules; nft when equal.
pub fn detect_backend() -> Result<Backend, Error> {
    let nft = save(Backend::Nft, Family::V4)?;
    // Without the legacy programs or modules there is nothing to choose.
    let Ok(legacy) = save(Backend::Legacy, Family::V4) else {
        return Ok(Backend::Nft);
    };
    Ok(choose_backend(&nft, &legacy))
}

/// The rule of [`detect_backend`] on two listings.
pub fn choose_backend(nft: &str, legacy: &str) -> Backend {
    if hinted(nft) {
        return Backend::Nft;
    }
    let rules = |listing: &str| listing.lines().filter(|l| l.contains("-A ")).count();
    if hinted(legacy) || rules(legacy) > rules(nft) { Backend::Legacy } else { Backend::Nft }
}

fn hinted(listing: &str) -> bool {
    let mut mangle = false;
    for line in listing.lines() {
        if let Some(table) = line.strip_prefix('*') {
            mangle = table == "mangle";
        }
        if mangle
            && (line.starts_with(":KUBE-IPTABLES-HINT ")
                || line.starts_with(":KUBE-KUBELET-CANARY "))
        {
            return true;
        }
    }
    false
}

/// Sets the policy of FORWARD to ACCEPT: container runtimes set it to DROP, and pods of other
/// networks of the node would be cut off. IPv4 only, once at start.
pub fn accept_forward(backend: Backend) -> Result<(), Error> {
    restore(backend, Family::V4, "*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n")
}
