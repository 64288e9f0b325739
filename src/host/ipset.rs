//! Model of ipsets, their `ipset save` form and the difference as `ipset restore` batches.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::IpAddr,
};

use crate::{
    api::Text,
    net::{Cidr, Family, ip_from_number},
};

/// Upstream's limit of members, wide enough for a pod per address.
const MAX_ELEMENTS: u32 = 1_048_576;
/// IPSET_MAXNAMELEN without the terminator.
const MAX_NAME: usize = 31;

/// Type of an ipset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetKind {
    HashNet,
    HashIp,
}

impl SetKind {
    fn name(self) -> &'static str {
        match self {
            SetKind::HashNet => "hash:net",
            SetKind::HashIp => "hash:ip",
        }
    }
}

/// One ipset of ours. Members are of its family, with host bits cleared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpSet {
    pub kind: SetKind,
    pub family: Family,
    pub members: BTreeSet<Cidr>,
}

impl IpSet {
    /// Members of the other family are left out; a prefix of length 0, which hash:net refuses,
    /// becomes its two halves.
    pub fn new(kind: SetKind, family: Family, members: impl IntoIterator<Item = Cidr>) -> Self {
        let members = members
            .into_iter()
            .filter(|m| m.family() == family)
            .flat_map(|m| if m.prefix == 0 { halves(family) } else { [Some(m.network()), None] })
            .flatten()
            .collect();
        IpSet { kind, family, members }
    }

    fn create(&self, name: &str) -> String {
        let family = match self.family {
            Family::V4 => "inet",
            Family::V6 => "inet6",
        };
        let kind = self.kind.name();
        format!("create {name} {kind} family {family} hashsize 1024 maxelem {MAX_ELEMENTS}")
    }
}

fn halves(family: Family) -> [Option<Cidr>; 2] {
    let upper = ip_from_number(family, 1 << (family.bits() - 1));
    [Cidr::new(family.default_route().address, 1), Cidr::new(upper, 1)]
}

/// `ovn40<suffix>` or `ovn60<suffix>`, cut at the kernel's limit.
pub fn set_name(family: Family, suffix: &str) -> Text {
    let name = format!("ovn{}0{suffix}", family.digit());
    name.chars().take(MAX_NAME).collect::<String>().into()
}

/// Names of all sets in an `ipset save` listing (feed those of kube-proxy to the view).
pub fn parse_set_names(listing: &str) -> BTreeSet<Text> {
    parse(listing).into_keys().map(Text::from).collect()
}

/// A set as listed.
#[derive(Default)]
struct Listed<'a> {
    kind: &'a str,
    family: &'a str,
    max_elements: &'a str,
    /// Member -> its text.
    members: BTreeMap<Cidr, &'a str>,
    /// Members that are not ours by form (`10.0.0.0/8 nomatch`).
    strange: Vec<&'a str>,
}

fn parse(listing: &str) -> BTreeMap<&str, Listed<'_>> {
    let mut sets: BTreeMap<&str, Listed<'_>> = BTreeMap::new();
    for line in listing.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(verb), Some(name), Some(rest)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let set = sets.entry(name).or_default();
        if verb == "create" {
            let after = |key: &str| {
                let mut options = rest.split(' ').skip_while(|w| *w != key);
                options.nth(1).unwrap_or_default()
            };
            set.kind = rest.split(' ').next().unwrap_or_default();
            (set.family, set.max_elements) = (after("family"), after("maxelem"));
        } else if let Some(member) = parse_member(rest) {
            set.members.insert(member, rest);
        } else {
            set.strange.push(rest);
        }
    }
    sets
}

/// `10.16.0.0/16`, or `10.16.0.5` for a host.
fn parse_member(text: &str) -> Option<Cidr> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(Cidr::host))
}

/// `true` for names that the agent owns.
fn is_ours(name: &str) -> bool {
    name.starts_with("ovn4") || name.starts_with("ovn6")
}

/// Batches that lead from a listing to the wanted sets; "" = nothing to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetChanges {
    /// Goes before the rules that refer to the sets.
    pub before: String,
    /// Destroys sets that nobody refers to any more.
    pub after: String,
}

/// Existing sets are changed member by member: the rules keep matching meanwhile.
pub fn diff_sets(wanted: &BTreeMap<Text, IpSet>, listing: &str) -> SetChanges {
    let listed = parse(listing);
    let mut changes = SetChanges::default();
    for (name, set) in wanted {
        let before = &mut changes.before;
        match listed.get(&**name) {
            None => fill(before, name, set),
            Some(seen) if !same_header(set, seen) => replace(before, name, set, &listed),
            Some(seen) => update(before, name, set, seen),
        }
    }
    for name in listed.keys().filter(|n| is_ours(n) && !wanted.contains_key(**n)) {
        line(&mut changes.after, format_args!("destroy {name}"));
    }
    changes
}

fn line(batch: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(batch, "{text}");
}

fn fill(batch: &mut String, name: &str, set: &IpSet) {
    line(batch, format_args!("{}", set.create(name)));
    for member in &set.members {
        line(batch, format_args!("add {name} {member}"));
    }
}

fn same_header(set: &IpSet, seen: &Listed<'_>) -> bool {
    same_type(set, seen) && seen.max_elements == MAX_ELEMENTS.to_string()
}

fn same_type(set: &IpSet, seen: &Listed<'_>) -> bool {
    let v6 = seen.family == "inet6";
    seen.kind == set.kind.name() && v6 == (set.family == Family::V6)
}

/// Another size is swapped in under the rules; another type cannot be (the kernel refuses), so
/// the set must be free.
fn replace(batch: &mut String, name: &str, set: &IpSet, listed: &BTreeMap<&str, Listed<'_>>) {
    if listed.get(name).is_some_and(|seen| !same_type(set, seen)) {
        line(batch, format_args!("destroy {name}"));
        fill(batch, name, set);
        return;
    }
    let spare = set_name(set.family, "-spare");
    if listed.contains_key(&*spare) {
        line(batch, format_args!("destroy {spare}"));
    }
    fill(batch, &spare, set);
    line(batch, format_args!("swap {spare} {name}"));
    line(batch, format_args!("destroy {spare}"));
}

fn update(batch: &mut String, name: &str, set: &IpSet, seen: &Listed<'_>) {
    for member in set.members.iter().filter(|m| !seen.members.contains_key(m)) {
        line(batch, format_args!("add {name} {member} -exist"));
    }
    let surplus = seen.members.iter().filter(|(m, _)| !set.members.contains(m)).map(|(_, t)| t);
    for text in surplus.chain(&seen.strange) {
        // `nomatch` is an option of the entry, not part of its key.
        let key = text.split(' ').next().unwrap_or_default();
        line(batch, format_args!("del {name} {key} -exist"));
    }
}
