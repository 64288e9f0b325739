//! Value types of networking.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use kube_ovn::net::{
    Cidr, DualStack, Expression, Family, IpRange, Mac, NetError, RangeSet, address_set_name, field,
    ip_from_number, ip_number, port_group_name,
};
use proptest::prelude::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

#[test]
fn first_and_last_usable_addresses() {
    for (prefix, first, last) in [
        ("192.168.0.23/24", "192.168.0.1", "192.168.0.254"),
        ("192.168.0.23/31", "192.168.0.22", "192.168.0.23"),
        ("192.168.0.23/32", "192.168.0.23", "192.168.0.23"),
        ("0.0.0.0/0", "0.0.0.1", "255.255.255.254"),
        ("fd00::5/64", "fd00::1", "fd00::ffff:ffff:ffff:fffe"),
        ("fd00::5/127", "fd00::4", "fd00::5"),
        ("fd00::5/128", "fd00::5", "fd00::5"),
        ("::/0", "::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"),
    ] {
        assert_eq!(cidr(prefix).first_usable(), ip(first), "{prefix}");
        assert_eq!(cidr(prefix).last_usable(), ip(last), "{prefix}");
    }
}

#[test]
fn network_and_broadcast() {
    for (prefix, address, expected) in [
        ("10.0.0.0/24", "10.0.0.0", true),
        ("10.0.0.7/24", "10.0.0.255", true),
        ("10.0.0.0/24", "10.0.0.1", false),
        ("10.0.0.0/24", "10.0.1.0", false),
        ("10.0.0.0/31", "10.0.0.1", false),
        ("fd00::/64", "fd00::", true),
        ("fd00::/127", "fd00::1", false),
        ("10.0.0.1/32", "10.0.0.1", false),
    ] {
        assert_eq!(
            cidr(prefix).is_network_or_broadcast(ip(address)),
            expected,
            "{prefix} {address}"
        );
    }
}

#[test]
fn containment_and_overlap() {
    assert!(cidr("10.0.0.0/8").contains_cidr(cidr("10.1.0.0/16")));
    assert!(!cidr("10.1.0.0/16").contains_cidr(cidr("10.0.0.0/8")));
    assert!(cidr("10.1.0.0/16").overlaps(cidr("10.0.0.0/8")));
    assert!(!cidr("10.1.0.0/16").overlaps(cidr("10.2.0.0/16")));
    assert!(!cidr("0.0.0.0/0").overlaps(cidr("::/0")));
    assert!(cidr("::/0").contains(ip("::1")) && !cidr("::/0").contains(ip("1.1.1.1")));
    assert_eq!(cidr("10.16.3.4/16").network(), cidr("10.16.0.0/16"));
    assert_eq!(cidr("10.16.3.4/16").to_string(), "10.16.3.4/16");
    assert!(Family::V4.default_route().contains(ip("255.255.255.255")));
}

#[test]
fn bad_texts_are_refused_with_the_text() {
    for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0/8", "::/129"]
    {
        assert_eq!(text.parse::<Cidr>(), Err(NetError::Cidr(text.into())));
    }
    for text in ["10.0.0.2..10.0.0.1", "10.0.0.1..::2", "10.0.0.1..", "..", "10.0.0.1-10.0.0.2"] {
        let error = IpRange::parse(text).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
    assert!(IpRange::parse("10.0.0.261").is_err());
    for text in ["", "1.1.1.1,2.2.2.2", "1.1.1.1,", "x", "10.0.0.1/24"] {
        assert!(DualStack::<IpAddr>::parse_addresses(text).is_err(), "{text:?}");
    }
    for text in [
        "",
        "02:00:00:00:00",
        "02:00:00:00:00:0g",
        "2:0:0:0:0:1",
        "02:00-00:00:00:01",
        "02:00:00:00:00:01:02",
        "0200.0000.0001",
    ] {
        assert_eq!(text.parse::<Mac>(), Err(NetError::Mac(text.into())));
    }
}

#[test]
fn dual_stack_texts() {
    for text in ["10.0.0.1,fd00::1", "fd00::1,10.0.0.1", " 10.0.0.1 , fd00::1 "] {
        let pair = DualStack::parse_addresses(text).unwrap();
        assert_eq!((pair.to_string().as_str(), pair.protocol()), ("10.0.0.1,fd00::1", "Dual"));
        assert!(pair.is_dual());
    }
    let v6 = DualStack::parse_cidrs("fd00::/64").unwrap();
    assert_eq!((v6.protocol(), v6.families().collect::<Vec<_>>()), ("IPv6", vec![Family::V6]));
    assert!(v6.contains(ip("fd00::9")) && !v6.contains(ip("10.0.0.1")));
    let dual = DualStack::parse_cidrs("10.0.0.0/8,fd00::/8").unwrap();
    assert!(v6.overlaps(&dual) && !v6.overlaps(&DualStack::parse_cidrs("10.0.0.0/8").unwrap()));
}

/// Upstream prints v6 addresses below 2^32 as IPv4.
#[test]
fn numbers_keep_their_family() {
    for text in ["::a.b.c.d".replace("a.b.c.d", "10.0.0.1").as_str(), "::1", "10.0.0.1", "ffff::"] {
        let address = ip(text);
        assert_eq!(ip_from_number(Family::of(address), ip_number(address)), address);
    }
}

#[test]
fn macs() {
    let mac: Mac = "02-AA-00-00-00-01".parse().unwrap();
    assert_eq!(mac.to_string(), "02:aa:00:00:00:01");
    assert_eq!(mac.link_local().to_string(), "fe80::aa:ff:fe00:1");
    for seed in [0, u64::MAX, 0x0123_4567_89ab_cdef] {
        assert_eq!(Mac::local(seed).0[0] & 0x03, 0x02);
    }
}

#[test]
fn names_and_matches() {
    assert_eq!(port_group_name(&["node", "kube-ovn-worker"]), "node.kube.ovn.worker");
    assert_eq!(address_set_name("pg", Family::V6), "pg_ip6");
    let both = Expression::equals(field(Family::V4, "src"), "$as").and(Expression::new("tcp"));
    assert_eq!(both.to_string(), "ip4.src == $as && tcp");
}

#[test]
fn range_texts_and_counts() {
    let mut set = RangeSet::new();
    for text in ["10.16.0.0..10.16.0.20", "10.16.0.30"] {
        let range = IpRange::parse(text).unwrap();
        set.insert_range(range.first, range.last);
    }
    assert_eq!(set.count(), 22);
    assert_eq!(set.text(Family::V4), "10.16.0.0-10.16.0.20,10.16.0.30");
    let mut all = RangeSet::new();
    all.insert_range(0, u128::MAX);
    assert_eq!(all.count(), u128::MAX, "saturates");
    all.remove(u128::MAX);
    all.remove(0);
    assert_eq!(all.iter().collect::<Vec<_>>(), [(1, u128::MAX - 1)]);
    all.insert(u128::MAX);
    assert_eq!(all.first_outside(&all.clone()), None);
}

fn set_of(ranges: &[(u8, u8)]) -> (RangeSet, BTreeSet<u128>) {
    let (mut set, mut naive) = (RangeSet::new(), BTreeSet::new());
    for (a, len) in ranges {
        let (a, b) = (u128::from(*a), u128::from(*a) + u128::from(*len));
        set.insert_range(a, b);
        naive.extend(a..=b);
    }
    (set, naive)
}

fn assert_same(set: &RangeSet, naive: &BTreeSet<u128>) {
    let members: Vec<u128> = set.iter().flat_map(|(a, b)| a..=b).collect();
    assert!(members.iter().eq(naive.iter()), "{set:?} != {naive:?}");
    assert_eq!(set.count(), naive.len() as u128);
    let ranges: Vec<_> = set.iter().collect();
    assert!(ranges.windows(2).all(|w| w[0].1 + 1 < w[1].0), "not adjacent: {ranges:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn range_sets_are_sets(
        a in prop::collection::vec((0..60u8, 0..8u8), 0..8),
        b in prop::collection::vec((0..60u8, 0..8u8), 0..8),
        n in 0..70u128,
    ) {
        let ((a, naive_a), (b, naive_b)) = (set_of(&a), set_of(&b));
        assert_same(&a, &naive_a);
        assert_same(&a.intersection(&b), &naive_a.intersection(&naive_b).copied().collect());
        let mut minus = a.clone();
        minus.remove_set(&b);
        let naive_minus: BTreeSet<u128> = naive_a.difference(&naive_b).copied().collect();
        assert_same(&minus, &naive_minus);
        let mut union = a.clone();
        union.insert_set(&b);
        assert_same(&union, &naive_a.union(&naive_b).copied().collect());
        prop_assert_eq!(a.contains(n), naive_a.contains(&n));
        prop_assert_eq!(a.first_from(n), naive_a.range(n..).next().copied());
        prop_assert_eq!(a.first_outside(&b), naive_minus.first().copied());
        prop_assert_eq!(a.first(), naive_a.first().copied());
        prop_assert_eq!(a.end_of(n).is_some(), naive_a.contains(&n));
        let mut one_less = a.clone();
        prop_assert_eq!(one_less.remove(n), naive_a.contains(&n));
        prop_assert!(!one_less.contains(n));
    }

    #[test]
    fn cidr_bounds_agree_with_the_mask(address in any::<u32>(), prefix in 0..=32u8) {
        let cidr = Cidr::new(IpAddr::V4(Ipv4Addr::from(address)), prefix).unwrap();
        let mask = if prefix == 0 { 0 } else { u32::MAX << (32 - prefix) };
        prop_assert_eq!(cidr.first_number(), u128::from(address & mask));
        prop_assert_eq!(cidr.last_number(), u128::from(address | !mask));
        prop_assert_eq!(cidr.to_string().parse::<Cidr>(), Ok(cidr));
        prop_assert!(cidr.contains(cidr.first_usable()) && cidr.contains(cidr.last_usable()));
    }
}
