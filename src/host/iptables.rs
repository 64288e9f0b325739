//! Text model of iptables tables, and the smallest `iptables-restore --noflush` batch that makes
//! them true.
//!
//! Chains of ours are compared as a whole and rewritten as a whole; `--noflush` empties
//! exactly the chains that a batch declares. In the kernel's chains only our own rules are looked
//! at. A table without differences does not appear in the batch.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use crate::api::Text;

/// A rule without `-A CHAIN`, in the form that iptables-save prints.
pub type Rule = String;

/// Wanted tables of one family. Empty = nothing of ours may be left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tables {
    pub nat: Table,
    pub mangle: Table,
    pub filter: Table,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// Chains of ours, complete.
    pub chains: BTreeMap<Text, Vec<Rule>>,
    /// Our rules in chains of the kernel, top first.
    pub hooks: BTreeMap<&'static str, Vec<Hook>>,
}

/// A rule in a chain that others use too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    pub rule: Rule,
    pub place: HookPlace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookPlace {
    /// Above kube-proxy's portals, or first when there are none.
    AbovePortals,
    /// Above our rules of a later place; inserted first when missing, not moved after that.
    Early,
    Late,
}

impl Tables {
    fn each(&self) -> [(&'static str, &Table); 3] {
        [("nat", &self.nat), ("mangle", &self.mangle), ("filter", &self.filter)]
    }
}

/// The batch from an `iptables-save` listing (with or without counters) to `wanted`; "" = none.
/// Each table in it is applied as a whole or not at all. A table that the listing could not show
/// (somebody used nft(8) features in it) is left alone: unseen rules would be added for ever.
pub fn diff_tables(wanted: &Tables, listing: &str) -> String {
    let seen = parse(listing);
    let empty = BTreeMap::new();
    let mut batch = String::new();
    for (name, table) in wanted.each() {
        if listing.contains(&format!("# Table `{name}' is incompatible")) {
            continue;
        }
        diff_table(&mut batch, name, table, seen.get(name).unwrap_or(&empty));
    }
    batch
}

/// Chain -> rules in order.
type Listed<'a> = BTreeMap<&'a str, Vec<&'a str>>;

fn parse(listing: &str) -> BTreeMap<&str, Listed<'_>> {
    let mut tables: BTreeMap<&str, Listed<'_>> = BTreeMap::new();
    let mut table = "";
    for line in listing.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
            tables.entry(table).or_default();
        } else if let Some(rest) = line.strip_prefix(':') {
            let chain = rest.split(' ').next().unwrap_or_default();
            tables.entry(table).or_default().entry(chain).or_default();
        } else if let Some((chain, rule)) = parse_rule(line) {
            tables.entry(table).or_default().entry(chain).or_default().push(rule);
        }
    }
    tables
}

/// `[packets:bytes] -A CHAIN rule` or `-A CHAIN rule`.
fn parse_rule(line: &str) -> Option<(&str, &str)> {
    let bare = match line.strip_prefix('[') {
        Some(rest) => rest.split_once("] ")?.1,
        None => line,
    };
    let rest = bare.strip_prefix("-A ")?;
    Some(rest.split_once(' ').unwrap_or((rest, "")))
}

fn diff_table(batch: &mut String, name: &str, wanted: &Table, seen: &Listed<'_>) {
    let changed: Vec<_> = wanted
        .chains
        .iter()
        .filter(|(chain, rules)| seen.get(&***chain).is_none_or(|s| !equal(rules, s)))
        .collect();
    let stale: Vec<&str> = seen
        .keys()
        .copied()
        .filter(|chain| is_our_chain(chain) && !wanted.chains.contains_key(*chain))
        .collect();
    let mut moves = Vec::new();
    let hooked: BTreeSet<&str> = seen
        .keys()
        .copied()
        .filter(|c| !is_our_chain(c))
        .chain(wanted.hooks.keys().copied())
        .collect();
    for chain in hooked {
        let none = (Vec::new(), Vec::new());
        let wanted = wanted.hooks.get(chain).unwrap_or(&none.0);
        let seen = seen.get(chain).unwrap_or(&none.1);
        moves.extend(diff_hooks(chain, wanted, seen));
    }
    if changed.is_empty() && stale.is_empty() && moves.is_empty() {
        return;
    }
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = writeln!(batch, "{text}");
    };
    line(format_args!("*{name}"));
    for chain in changed.iter().map(|(c, _)| &***c).chain(stale.iter().copied()) {
        line(format_args!(":{chain} - [0:0]"));
    }
    for (chain, rules) in &changed {
        for rule in *rules {
            line(format_args!("-A {chain} {rule}"));
        }
    }
    for text in &moves {
        line(format_args!("{text}"));
    }
    for chain in &stale {
        line(format_args!("-X {chain}"));
    }
    line(format_args!("COMMIT"));
}

fn equal(wanted: &[Rule], seen: &[&str]) -> bool {
    wanted.len() == seen.len() && wanted.iter().zip(seen).all(|(w, s)| words(w) == words(s))
}

/// Words of a rule with quotes removed and implied masks written out.
fn words(rule: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    let mut letters = rule.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().extend(letters.next()),
            ' ' if !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    for at in 1..words.len() {
        if words[at - 1] == "--set-xmark" && !words[at].contains('/') {
            words[at].push_str("/0xffffffff");
        }
    }
    words
}

/// Quotes an argument exactly when iptables-save would.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("\"{text}\"")
    }
}

/// Comment of the per-subnet counters; what follows is the subnet.
pub const COUNTER_COMMENT: &str = "ovn-subnet-gateway,";

/// Not every `OVN-` chain: ovn-kubernetes has `OVN-KUBE-*`.
fn is_our_chain(name: &str) -> bool {
    const NAMES: [&str; 5] =
        ["OVN-PREROUTING", "OVN-POSTROUTING", "OVN-OUTPUT", "OVN-MASQUERADE", "OVN-NAT-POLICY"];
    NAMES.contains(&name) || name.starts_with("OVN-NAT-PSUBNET-")
}

/// Our rules in foreign chains are known by form, not by what is wanted now, so that those of
/// vanished subnets, of former modes and of older releases are found.
fn is_ours(words: &[String]) -> bool {
    let after = |key: &str| {
        words.iter().position(|w| w == key).and_then(|at| words.get(at + 1)).map_or("", |w| w)
    };
    let target = after("-j");
    let comment = after("--comment");
    let set = after("--match-set");
    let of_ours = |suffix: &str| set == format!("ovn40{suffix}") || set == format!("ovn60{suffix}");
    match target {
        "" => comment.starts_with(COUNTER_COMMENT),
        "OVN-PREROUTING" | "OVN-POSTROUTING" | "OVN-OUTPUT" => true,
        "ACCEPT" => words.len() == 7 && (of_ours("subnets") || of_ours("services")),
        "REJECT" => of_ours("services") && after("--mark") == "0x4000/0x4000",
        "MARK" => {
            words.len() == 10
                && ["6081", "4789"].contains(&after("--dport"))
                && after("--set-xmark").starts_with("0x0/")
        }
        _ => false,
    }
}

fn is_portal(words: &[String]) -> bool {
    words.ends_with(&["-j".to_owned(), "KUBE-SERVICES".to_owned()])
        && words.iter().any(|w| w == "kubernetes service portals")
}

/// Commands for one foreign chain. Deletions name the whole rule, never a position: others may
/// have moved it since the listing.
fn diff_hooks(chain: &str, wanted: &[Hook], seen: &[&str]) -> Vec<String> {
    let all: Vec<Vec<String>> = seen.iter().map(|rule| words(rule)).collect();
    let ours: Vec<usize> = (0..all.len()).filter(|at| is_ours(&all[*at])).collect();
    let goal: Vec<Vec<String>> = wanted.iter().map(|h| words(&h.rule)).collect();
    let find = |at: usize| goal.iter().position(|g| *g == all[at]);
    let (kept, stale): (Vec<usize>, Vec<usize>) = ours.iter().partition(|at| find(**at).is_some());
    let present: Vec<usize> = kept.iter().filter_map(|at| find(*at)).collect();
    let missing: Vec<usize> = (0..goal.len()).filter(|g| !present.contains(g)).collect();
    let delete = |at: &usize| format!("-D {chain} {}", seen[*at]);
    // Missing rules are inserted on top, so the chain would read: missing, then present.
    let places: Vec<HookPlace> = missing.iter().chain(&present).map(|g| wanted[*g].place).collect();
    let unique = present.iter().collect::<BTreeSet<_>>().len() == present.len();
    if unique && places.is_sorted() && above_portals(wanted, &present, &kept, &all) {
        let insert = missing.iter().rev().map(|g| insert(chain, 1, &wanted[*g]));
        return stale.iter().map(delete).chain(insert).collect();
    }
    let rest = all.iter().enumerate().filter(|(at, _)| !ours.contains(at));
    let portal = rest.map(|(_, words)| words).position(|words| is_portal(words)).unwrap_or(0);
    let insert = wanted.iter().rev().map(|hook| match hook.place {
        HookPlace::AbovePortals => insert(chain, portal + 1, hook),
        HookPlace::Early | HookPlace::Late => insert(chain, 1, hook),
    });
    ours.iter().map(delete).chain(insert).collect()
}

/// Position 1 needs no number, as `iptables -I` without one.
fn insert(chain: &str, position: usize, hook: &Hook) -> String {
    if position == 1 {
        format!("-I {chain} {}", hook.rule)
    } else {
        format!("-I {chain} {position} {}", hook.rule)
    }
}

fn above_portals(wanted: &[Hook], present: &[usize], kept: &[usize], all: &[Vec<String>]) -> bool {
    let limit = all.iter().position(|words| is_portal(words)).unwrap_or(1);
    present
        .iter()
        .zip(kept)
        .filter(|(g, _)| wanted[**g].place == HookPlace::AbovePortals)
        .all(|(_, at)| *at < limit)
}

/// Traffic of a subnet through the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetCounter {
    pub subnet: Text,
    pub cidr: Text,
    pub direction: Direction,
    pub packets: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Ingress,
    Egress,
}

/// Reads the per-subnet counters of a listing made with counters (`iptables-save -c`).
pub fn parse_counters(listing: &str) -> Vec<SubnetCounter> {
    listing.lines().filter_map(parse_counter).collect()
}

fn parse_counter(line: &str) -> Option<SubnetCounter> {
    let (counts, rest) = line.strip_prefix('[')?.split_once("] -A FORWARD ")?;
    let words = words(rest);
    let subnet = words.iter().find_map(|w| w.strip_prefix(COUNTER_COMMENT))?;
    let direction = match words.first()?.as_str() {
        "-s" => Direction::Egress,
        "-d" => Direction::Ingress,
        _ => return None,
    };
    let (packets, bytes) = counts.split_once(':')?;
    Some(SubnetCounter {
        subnet: subnet.into(),
        cidr: words.get(1)?.as_str().into(),
        direction,
        packets: packets.parse().ok()?,
        bytes: bytes.parse().ok()?,
    })
}
