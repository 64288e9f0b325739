//! The allocator: worked examples of the manual and one named case per known defect of upstream.

use std::net::IpAddr;

use kube_ovn::{
    ipam::{
        Allocation, Conflicts, Ipam, IpamError, MacWish, NodeAddresses, Record, Request,
        SubnetSpec, Usage, Wish, expand_excludes,
    },
    net::{Cidr, DualStack, Family, IpRange, Mac},
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pair(text: &str) -> DualStack<IpAddr> {
    DualStack::parse_addresses(text).unwrap()
}

fn ranges(texts: &[&str]) -> Vec<IpRange> {
    texts.iter().map(|t| IpRange::parse(t).unwrap()).collect()
}

fn spec(cidr: &str, gateway: &str, excludes: &[&str]) -> SubnetSpec {
    SubnetSpec::parse("s", cidr, gateway, excludes).unwrap()
}

fn subnet(cidr: &str, gateway: &str, excludes: &[&str]) -> Ipam {
    let mut ipam = Ipam::new();
    ipam.upsert_subnet(spec(cidr, gateway, excludes)).unwrap();
    ipam
}

/// Pod `name` with its first port.
fn ask(name: &str) -> Request {
    Request::any(&format!("ns/{name}"), &format!("{name}.ns"), "s", 7)
}

fn wish(name: &str, wish: Wish) -> Request {
    Request { wish, ..ask(name) }
}

fn fixed(name: &str, addresses: &str) -> Request {
    wish(name, Wish::Static(pair(addresses)))
}

fn given(ipam: &mut Ipam, request: &Request) -> String {
    match ipam.allocate(request) {
        Ok(a) => a.addresses.to_string(),
        Err(e) => e.to_string(),
    }
}

fn refused(ipam: &mut Ipam, request: &Request, word: &str) -> IpamError {
    let before = format!("{:?} {:?}", ipam.usage("s"), ipam.allocation(&request.port));
    let error = ipam.allocate(request).expect_err("must be refused");
    assert!(error.to_string().starts_with(word), "{error}");
    let after = format!("{:?} {:?}", ipam.usage("s"), ipam.allocation(&request.port));
    assert_eq!(before, after, "a refused request changed something");
    error
}

fn v4(ipam: &Ipam) -> Usage {
    ipam.usage("s").v4.unwrap()
}

const V4_EXCLUDES: [&str; 4] = ["10.0.0.2", "10.0.0.4", "10.0.0.100", "10.0.0.252..10.0.0.254"];
const V6_EXCLUDES: [&str; 4] =
    ["2001:db8::2", "2001:db8::4", "2001:db8::100", "2001:db8::252..2001:db8::254"];

#[test]
fn free_and_reserved_addresses_of_a_new_subnet() {
    let mut ipam = subnet("10.0.0.0/24", "", &V4_EXCLUDES);
    assert_eq!(
        v4(&ipam).available_ranges,
        "10.0.0.1,10.0.0.3,10.0.0.5-10.0.0.99,10.0.0.101-10.0.0.251"
    );
    assert_eq!(given(&mut ipam, &ask("a")), "10.0.0.1");
    let mut ipam = subnet("10.0.0.0/24", "", &V4_EXCLUDES);
    let skip = vec![ip("10.0.0.1"), ip("10.0.0.3")];
    assert_eq!(given(&mut ipam, &Request { skip, ..ask("a") }), "10.0.0.5");
}

#[test]
fn v6_subnet_of_64_bits_is_not_enumerated() {
    let mut ipam = subnet("2001:db8::/64", "", &V6_EXCLUDES);
    let usage = ipam.usage("s").v6.unwrap();
    assert!(usage.available_ranges.ends_with("2001:db8::255-2001:db8::ffff:ffff:ffff:fffe"));
    assert_eq!(usage.available, (1 << 64) - 2 - 6);
    assert_eq!(given(&mut ipam, &ask("a")), "2001:db8::1");
}

#[test]
fn dual_stack_gives_one_address_per_family() {
    let excludes = [V4_EXCLUDES, V6_EXCLUDES].concat();
    let mut ipam = subnet("10.0.0.0/24,2001:db8::/64", "", &excludes);
    assert_eq!(given(&mut ipam, &ask("a")), "10.0.0.1,2001:db8::1");
    // Upstream reads "v6,v4" wrongly.
    let mut ipam = subnet("2001:db8::/64,10.0.0.0/24", "", &excludes);
    assert_eq!(given(&mut ipam, &ask("a")), "10.0.0.1,2001:db8::1");
}

#[test]
fn a_released_address_is_used_last() {
    let mut ipam = subnet("10.16.0.0/30", "", &[]);
    for expected in ["10.16.0.1", "10.16.0.2", "10.16.0.1"] {
        assert_eq!(given(&mut ipam, &ask("a")), expected);
        ipam.release("a.ns");
    }
}

#[test]
fn a_released_address_that_becomes_excluded_is_not_given() {
    let mut ipam = subnet("10.16.0.0/30", "", &[]);
    ipam.allocate(&ask("a")).unwrap();
    ipam.release("a.ns");
    ipam.upsert_subnet(spec("10.16.0.0/30", "", &["10.16.0.1..10.16.0.2"])).unwrap();
    refused(&mut ipam, &ask("a"), "NoAvailableAddress");
}

#[test]
fn static_address_in_excluded_range_is_allowed_and_not_counted() {
    let excludes = ["10.16.10.1", "10.16.10.10"];
    let mut ipam = subnet("10.16.10.0/28", "10.16.10.1", &excludes);
    refused(&mut ipam, &fixed("a", "10.16.10.1"), "AddressConflict");
    assert_eq!(given(&mut ipam, &fixed("a", "10.16.10.10")), "10.16.10.10");
    let usage = v4(&ipam);
    assert_eq!((usage.using, usage.using_ranges.as_str()), (0, ""));
    assert_eq!(usage.available_ranges, "10.16.10.2-10.16.10.9,10.16.10.11-10.16.10.14");
    ipam.upsert_subnet(spec("10.16.10.0/28", "10.16.10.1", &["10.16.10.1"])).unwrap();
    assert_eq!(v4(&ipam).using_ranges, "10.16.10.10");
    assert_eq!(v4(&ipam).using, 1);
}

#[test]
fn a_changed_cidr_is_used_at_once_and_garbage_keeps_the_old_one() {
    let mut ipam = subnet("10.0.0.0/24", "", &V4_EXCLUDES);
    ipam.upsert_subnet(spec("10.17.0.0/16", "", &["10.17.0.1"])).unwrap();
    assert_eq!(given(&mut ipam, &ask("a")), "10.17.0.2");
    for text in ["garbage", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/8,10.1.0.0/16", ""] {
        let error = SubnetSpec::parse("s", text, "", &[]).unwrap_err();
        assert!(error.to_string().starts_with("CIDRInvalid: subnet s: "), "{error}");
    }
    assert_eq!(ipam.subnets().next().unwrap().cidrs.to_string(), "10.17.0.0/16");
}

#[test]
fn both_addresses_of_a_31_and_a_127_are_usable() {
    let mut ipam = subnet("10.0.0.0/31", "10.0.0.0", &["10.0.0.0"]);
    assert_eq!(given(&mut ipam, &ask("a")), "10.0.0.1");
    let mut ipam = subnet("fd00::/127", "fd00::", &["fd00::"]);
    assert_eq!(given(&mut ipam, &ask("a")), "fd00::1");
    let mut ipam = subnet("10.0.0.0/31", "", &[]);
    assert_eq!(given(&mut ipam, &ask("a")), "10.0.0.0");
}

/// Upstream panics in its rebuild and loops.
#[test]
fn a_subnet_of_one_address_is_invalid_and_harmless() {
    for cidr in ["10.0.0.1/32", "fd00::1/128"] {
        let error = SubnetSpec::parse("s", cidr, "", &[]).unwrap_err();
        assert!(error.to_string().starts_with("CIDRInvalid"), "{error}");
        let mut stored = spec("10.0.0.0/24", "", &[]);
        let cidr: Cidr = cidr.parse().unwrap();
        stored.cidrs = [(cidr.family(), cidr)].into_iter().collect();
        assert!(Ipam::new().upsert_subnet(stored).is_err());
    }
}

#[test]
fn network_and_broadcast_are_never_given() {
    let mut ipam = subnet("10.0.0.0/30,fd00::/126", "", &[]);
    for address in ["10.0.0.0", "10.0.0.3", "fd00::", "fd00::3", "10.0.1.1", "fe80::1"] {
        refused(&mut ipam, &fixed("a", address), "AddressOutOfRange");
    }
    assert_eq!(given(&mut ipam, &ask("a")), "10.0.0.1,fd00::1");
    assert_eq!(given(&mut ipam, &ask("b")), "10.0.0.2,fd00::2");
    refused(&mut ipam, &ask("c"), "NoAvailableAddress");
}

#[test]
fn half_of_a_refused_dual_request_is_not_kept() {
    let mut ipam = subnet("10.0.0.0/24,2001:db8::/64", "", &[]);
    ipam.allocate(&fixed("a", "10.0.0.1")).unwrap();
    let error = refused(&mut ipam, &fixed("b", "10.0.0.1,2001:db8::3"), "AddressConflict");
    assert!(error.to_string().contains("port a.ns of ns/a"), "{error}");
    assert!(ipam.holders("s", ip("2001:db8::3")).is_empty());
}

#[test]
fn gateway_is_recognised_in_any_text_form() {
    let mut ipam = subnet("2001:db8::/64", "2001:0DB8:0:0::0001", &[]);
    refused(&mut ipam, &fixed("a", "2001:db8::1"), "AddressConflict");
    assert_eq!(given(&mut ipam, &ask("a")), "2001:db8::2");
}

#[test]
fn release_by_pod_frees_all_its_ports() {
    let mut ipam = subnet("10.0.0.0/29", "", &[]);
    let second = Request { port: "a.ns.net1.ns.ovn".into(), ..ask("a") };
    assert_eq!(given(&mut ipam, &ask("a")), "10.0.0.1");
    assert_eq!(given(&mut ipam, &second), "10.0.0.2");
    assert_eq!(ipam.release_owner("ns/a").len(), 2);
    assert_eq!(v4(&ipam).available, 6);
    // Both count as released: others go first.
    assert_eq!(given(&mut ipam, &ask("b")), "10.0.0.3");
    assert!(ipam.release_owner("ns/a").is_empty());
}

#[test]
fn the_same_port_gets_what_it_holds_unless_it_is_to_be_skipped() {
    let mut ipam = subnet("10.0.0.0/29", "", &[]);
    let first = ipam.allocate(&ask("a")).unwrap();
    assert_eq!(ipam.allocate(&Request { mac: MacWish::Random(99), ..ask("a") }).unwrap(), first);
    let skip = Request { skip: vec![ip("10.0.0.1")], ..ask("a") };
    assert_eq!(given(&mut ipam, &skip), "10.0.0.2");
    assert_eq!(v4(&ipam).using_ranges, "10.0.0.2");
}

#[test]
fn another_static_address_releases_the_old_one_and_keeps_the_other_family() {
    let mut ipam = subnet("10.0.0.0/24,fd00::/64", "", &[]);
    assert_eq!(given(&mut ipam, &ask("a")), "10.0.0.1,fd00::1");
    assert_eq!(given(&mut ipam, &fixed("a", "10.0.0.9")), "10.0.0.9,fd00::1");
    assert_eq!(v4(&ipam).using_ranges, "10.0.0.9");
    // One static address: the other family comes from the default pool.
    assert_eq!(given(&mut ipam, &fixed("b", "fd00::9")), "10.0.0.2,fd00::9");
}

#[test]
fn only_skipped_addresses_left_is_a_conflict() {
    let mut ipam = subnet("10.0.0.0/30", "", &[]);
    let skip = vec![ip("10.0.0.1"), ip("10.0.0.2")];
    refused(&mut ipam, &Request { skip, ..ask("a") }, "AddressConflict");
    refused(&mut ipam, &Request { subnet: "t".into(), ..ask("a") }, "NoSubnet");
}

#[test]
fn node_addresses_are_avoided_only_where_asked_for() {
    let mut ipam = subnet("10.0.0.0/29", "10.0.0.1", &[]);
    ipam.set_avoided([ip("10.0.0.2"), ip("10.0.0.3"), ip("fd00::1")]);
    assert_eq!(given(&mut ipam, &ask("a")), "10.0.0.2");
    let avoiding =
        SubnetSpec { node_addresses: NodeAddresses::Avoid, ..spec("10.0.0.0/29", "10.0.0.1", &[]) };
    ipam.upsert_subnet(avoiding).unwrap();
    assert_eq!(given(&mut ipam, &ask("b")), "10.0.0.4");
    ipam.set_avoided([ip("10.0.0.5"), ip("10.0.0.6")]);
    assert_eq!(given(&mut ipam, &ask("c")), "10.0.0.3");
    refused(&mut ipam, &ask("d"), "AddressConflict");
    // A released address that is to be avoided comes back when it no longer is.
    ipam.set_avoided(["10.0.0.2", "10.0.0.5", "10.0.0.6"].map(ip));
    ipam.release("a.ns");
    refused(&mut ipam, &ask("d"), "AddressConflict");
    ipam.set_avoided([]);
    assert_eq!(given(&mut ipam, &ask("d")), "10.0.0.2");
}

#[test]
fn sharing_keeps_the_address_until_both_are_gone() {
    let mut ipam = subnet("10.0.0.0/29", "", &[]);
    ipam.allocate(&ask("a")).unwrap();
    refused(&mut ipam, &fixed("b", "10.0.0.1"), "AddressConflict");
    let shared = Request { conflicts: Conflicts::Share, ..fixed("b", "10.0.0.1") };
    assert_eq!(given(&mut ipam, &shared), "10.0.0.1");
    assert_eq!(ipam.holders("s", ip("10.0.0.1")).len(), 2);
    assert_eq!(v4(&ipam).using, 1);
    ipam.release("a.ns");
    assert_eq!(v4(&ipam).using_ranges, "10.0.0.1");
    ipam.release("b.ns");
    assert_eq!(v4(&ipam).using, 0);
}

#[test]
fn macs_are_unique_in_the_subnet_and_never_the_gateways() {
    let mut ipam = Ipam::new();
    let mut first = spec("10.0.0.0/24", "10.0.0.1", &[]);
    let drawn = {
        let mut probe = subnet("10.0.0.0/24", "10.0.0.1", &[]);
        probe.allocate(&ask("a")).unwrap().mac.unwrap()
    };
    assert_eq!(drawn.0[0] & 0x03, 0x02, "locally administered, unicast");
    first.gateway_mac = Some(drawn);
    ipam.upsert_subnet(first).unwrap();
    let a = ipam.allocate(&ask("a")).unwrap().mac.unwrap();
    assert_ne!(a, drawn, "same seed, but the gateway holds the first draw");
    let b = ipam.allocate(&ask("b")).unwrap().mac.unwrap();
    assert!(b != a && b != drawn);
    for taken in [a, drawn] {
        let request = Request { mac: MacWish::Static(taken), ..ask("c") };
        refused(&mut ipam, &request, "AddressConflict");
    }
    let none = Request { mac: MacWish::None, ..ask("c") };
    assert_eq!(ipam.allocate(&none).unwrap().mac, None);
    ipam.release("a.ns");
    let reuse = Request { mac: MacWish::Static(a), ..ask("d") };
    assert_eq!(ipam.allocate(&reuse).unwrap().mac, Some(a));
}

fn pools() -> Ipam {
    let mut ipam = subnet("10.0.0.0/16", "", &[]);
    let entries = ["10.0.0.20", "10.0.0.90", "10.0.0.170", "10.0.0.240", "10.0.0.250"];
    ipam.upsert_pool("p", "s", &ranges(&entries)).unwrap();
    ipam
}

#[test]
fn pools_are_disjoint_and_inside_their_subnet() {
    let mut ipam = pools();
    let error = ipam.upsert_pool("q", "s", &ranges(&["10.0.0.20"])).unwrap_err().to_string();
    assert!(error.starts_with("conflict IPs") && error.contains("10.0.0.20"), "{error}");
    assert!(IpRange::parse("10.0.0.261").is_err());
    for outside in ["10.1.0.1", "fd00::1", "10.0.0.0"] {
        let error = ipam.upsert_pool("q", "s", &ranges(&[outside])).unwrap_err();
        assert!(matches!(error, IpamError::AddressOutOfRange { .. }), "{error}");
    }
    assert!(ipam.upsert_pool("q", "t", &[]).is_err());
    ipam.upsert_subnet(SubnetSpec { name: "t".into(), ..spec("10.1.0.0/16", "", &[]) }).unwrap();
    let moved = ipam.upsert_pool("p", "t", &ranges(&["10.1.0.1"])).unwrap_err();
    assert!(matches!(moved, IpamError::PoolElsewhere { .. }));
    assert!(ipam.pool_usage("q").is_empty());
}

#[test]
fn default_allocation_never_uses_a_named_pool() {
    let mut ipam = pools();
    let rest = ipam.default_pool_usage("s").v4.unwrap().available_ranges;
    assert!(rest.starts_with("10.0.0.1-10.0.0.19,10.0.0.21-10.0.0.89,10.0.0.91-"), "{rest}");
    assert_eq!(given(&mut ipam, &wish("a", Wish::Pool("p".into()))), "10.0.0.20");
    assert_eq!(given(&mut ipam, &wish("b", Wish::Pool("p".into()))), "10.0.0.90");
    assert_eq!(given(&mut ipam, &ask("c")), "10.0.0.1");
    assert_eq!(given(&mut ipam, &fixed("d", "10.0.0.170")), "10.0.0.170");
    let usage = ipam.pool_usage("p").v4.unwrap();
    assert_eq!((usage.available, usage.using), (2, 3));
    assert_eq!(usage.using_ranges, "10.0.0.20,10.0.0.90,10.0.0.170");
    refused(&mut ipam, &wish("e", Wish::Pool("q".into())), "NoAvailableAddress");
    for name in ["e", "f"] {
        ipam.allocate(&wish(name, Wish::Pool("p".into()))).unwrap();
    }
    refused(&mut ipam, &wish("g", Wish::Pool("p".into())), "NoAvailableAddress");
}

#[test]
fn a_pool_over_an_allocated_address_counts_it() {
    let mut ipam = subnet("10.0.0.0/24", "", &[]);
    ipam.allocate(&ask("a")).unwrap();
    ipam.upsert_pool("p", "s", &ranges(&["10.0.0.1"])).unwrap();
    let usage = ipam.pool_usage("p").v4.unwrap();
    assert_eq!((usage.using_ranges.as_str(), usage.available), ("10.0.0.1", 0));
    assert!(ipam.pool_usage("missing").is_empty());
    ipam.release("a.ns");
    assert_eq!(given(&mut ipam, &ask("b")), "10.0.0.2");
    assert_eq!(given(&mut ipam, &wish("c", Wish::Pool("p".into()))), "10.0.0.1");
}

#[test]
fn the_first_listed_address_that_nobody_else_holds_is_taken() {
    let list = |texts: &[&str]| Wish::FirstFree(texts.iter().map(|t| pair(t)).collect());
    let mut ipam = subnet("10.0.0.0/24,fd00::/64", "10.0.0.1,fd00::1", &[]);
    let wanted = list(&["10.0.0.7,fd00::7", "10.0.0.8,fd00::8"]);
    assert_eq!(given(&mut ipam, &wish("a", wanted.clone())), "10.0.0.7,fd00::7");
    assert_eq!(given(&mut ipam, &wish("b", wanted.clone())), "10.0.0.8,fd00::8");
    refused(&mut ipam, &wish("c", wanted.clone()), "NoAvailableAddress");
    ipam.release("a.ns");
    // A port keeps what it holds although an earlier element is free again.
    assert_eq!(given(&mut ipam, &wish("b", wanted)), "10.0.0.8,fd00::8");
    refused(&mut ipam, &wish("c", list(&[])), "NoAvailableAddress");
}

#[test]
fn a_port_is_in_one_subnet_and_belongs_to_one_pod() {
    let mut ipam = subnet("10.0.0.0/24", "", &[]);
    ipam.upsert_subnet(SubnetSpec { name: "t".into(), ..spec("10.1.0.0/24", "", &[]) }).unwrap();
    ipam.allocate(&ask("a")).unwrap();
    // "a.b" in "c" and "a" in "b" with provider "c" would share a port name.
    let stranger = Request { owner: "other/a".into(), ..ask("a") };
    refused(&mut ipam, &stranger, "AddressConflict: port a.ns belongs to ns/a");
    ipam.allocate(&Request { subnet: "t".into(), ..ask("a") }).unwrap();
    assert_eq!(&**ipam.subnet_of("a.ns").unwrap(), "t");
    assert_eq!(v4(&ipam).using, 0);
    assert_eq!(ipam.allocations().count(), 1);
    assert_eq!(ipam.remove_subnet("t").len(), 1);
    assert!(ipam.allocation("a.ns").is_none() && ipam.release_owner("ns/a").is_empty());
}

#[test]
fn shrinking_over_allocated_addresses_is_refused_with_their_names() {
    let mut ipam = subnet("10.0.0.0/24", "", &[]);
    ipam.allocate(&fixed("a", "10.0.0.200")).unwrap();
    ipam.allocate(&ask("b")).unwrap();
    let error = ipam.upsert_subnet(spec("10.0.0.0/28", "", &[])).unwrap_err().to_string();
    assert!(error.contains("10.0.0.200 (a.ns)") && !error.contains("b.ns"), "{error}");
    assert!(error.starts_with("CIDRInvalid"), "{error}");
    assert_eq!(v4(&ipam).available, 252);
    ipam.upsert_subnet(spec("10.0.0.0/16", "", &[])).unwrap();
    assert_eq!((v4(&ipam).available, v4(&ipam).using), (65534 - 2, 2));
    ipam.upsert_pool("p", "s", &ranges(&["10.0.9.0/24"])).unwrap();
    let error = ipam.upsert_subnet(spec("10.0.0.0/24", "", &[])).unwrap_err();
    assert!(matches!(error, IpamError::PoolInTheWay { .. }), "{error}");
    ipam.remove_pool("p");
    ipam.release("a.ns");
    ipam.upsert_subnet(spec("10.0.0.0/28", "", &[])).unwrap();
    // Removing a family is a shrink, adding one is not.
    ipam.upsert_subnet(spec("10.0.0.0/28,fd00::/64", "", &[])).unwrap();
    assert_eq!(given(&mut ipam, &ask("b")), "10.0.0.1,fd00::1");
    assert!(ipam.upsert_subnet(spec("10.0.0.0/28", "", &[])).is_err());
}

fn record(name: &str, address: &str, mac: Option<Mac>) -> Record {
    Record {
        owner: format!("ns/{name}").into(),
        port: format!("{name}.ns").into(),
        subnet: "s".into(),
        addresses: pair(address),
        mac,
    }
}

#[test]
fn restore_reports_what_contradicts_instead_of_overwriting() {
    let mut ipam = subnet("10.0.0.0/24", "10.0.0.1", &["10.0.0.10"]);
    let mac: Mac = "02:00:00:00:00:01".parse().unwrap();
    assert!(ipam.restore(&record("a", "10.0.0.5", Some(mac))).is_empty());
    assert!(ipam.restore(&record("a", "10.0.0.5", Some(mac))).is_empty());
    let findings = ipam.restore(&record("b", "10.0.0.5", Some(mac)));
    assert!(matches!(
        findings[..],
        [IpamError::AddressConflict { .. }, IpamError::MacConflict { .. }]
    ));
    assert_eq!(ipam.holders("s", ip("10.0.0.5")).len(), 2);
    assert!(ipam.restore(&record("x", "10.0.0.10", None)).is_empty(), "excluded is allowed");
    for (name, address, word) in [
        ("c", "10.0.0.1", "AddressConflict"),
        ("d", "10.9.9.9", "AddressOutOfRange"),
        ("e", "fd00::1", "AddressOutOfRange"),
    ] {
        let findings = ipam.restore(&record(name, address, None));
        assert!(findings[0].to_string().starts_with(word), "{findings:?}");
    }
    assert!(ipam.allocation("d.ns").is_none());
    let elsewhere = Record { subnet: "t".into(), ..record("f", "10.0.0.6", None) };
    assert!(matches!(ipam.restore(&elsewhere)[..], [IpamError::NoSubnet { .. }]));
    let stranger = Record { owner: "other/a".into(), ..record("a", "10.0.0.7", None) };
    assert!(matches!(ipam.restore(&stranger)[..], [IpamError::PortTaken { .. }]));
    // The shared address is free only after both are gone.
    ipam.release("a.ns");
    refused(&mut ipam, &fixed("g", "10.0.0.5"), "AddressConflict");
    refused(&mut ipam, &Request { mac: MacWish::Static(mac), ..ask("g") }, "AddressConflict");
    ipam.release("b.ns");
    assert_eq!(given(&mut ipam, &fixed("g", "10.0.0.5")), "10.0.0.5");
}

/// Upstream prints v6 addresses below 2^32 as IPv4.
#[test]
fn low_v6_addresses_stay_v6() {
    let mut ipam = subnet("::a00:0/112", "", &[]);
    assert_eq!(given(&mut ipam, &ask("a")), ip("::a00:1").to_string());
    assert!(ipam.allocation("a.ns").unwrap().addresses.v6.is_some());
}

#[test]
fn exclude_entries_are_cut_to_usable_addresses() {
    let expand = |cidr: &str, entries: &[&str]| {
        let cidr: Cidr = cidr.parse().unwrap();
        expand_excludes(cidr, entries.iter().copied()).text(Family::V4)
    };
    let cidr = "10.16.0.23/24";
    let entries = ["10.16.0.0..10.16.0.20", "10.16.0.23", "10.16.0.255"];
    assert_eq!(expand(cidr, &entries), "10.16.0.1-10.16.0.20,10.16.0.23");
    assert_eq!(expand(cidr, &["10.16.0.1..10.16.1.10"]), "10.16.0.1-10.16.0.254");
    assert_eq!(expand(cidr, &["10.16.0.20..10.16.0.1"]), "");
    assert_eq!(expand(cidr, &["10.16.0.10..10.16.0.10", "rubbish", "fd00::1"]), "10.16.0.10");
}

// The defects of upstream's allocator, numbered as in the fact sheet (appendix A.1).

#[test]
fn bug_1_conflicting_static_mac_leaks_no_address() {
    let mut ipam = subnet("10.0.0.0/29", "", &[]);
    let mac = ipam.allocate(&ask("a")).unwrap().mac.unwrap();
    for _ in 0..20 {
        refused(&mut ipam, &Request { mac: MacWish::Static(mac), ..ask("b") }, "AddressConflict");
    }
    assert_eq!(given(&mut ipam, &ask("b")), "10.0.0.2");
}

#[test]
fn bug_2_replacing_both_addresses_does_not_release_the_new_ones() {
    let mut ipam = subnet("10.0.0.0/29,fd00::/125", "", &[]);
    ipam.allocate(&ask("a")).unwrap();
    assert_eq!(given(&mut ipam, &fixed("a", "10.0.0.2,fd00::2")), "10.0.0.2,fd00::2");
    for name in ["b", "c", "d", "e", "f"] {
        let other = ipam.allocate(&ask(name)).unwrap();
        assert!(other.addresses.iter().all(|(_, a)| *a != ip("10.0.0.2") && *a != ip("fd00::2")));
    }
    refused(&mut ipam, &ask("g"), "NoAvailableAddress");
}

#[test]
fn bug_3_addresses_of_a_removed_pool_return_to_the_default_pool() {
    let mut ipam = pools();
    ipam.remove_pool("p");
    assert_eq!(given(&mut ipam, &fixed("a", "10.0.0.20")), "10.0.0.20");
    let rest = ipam.default_pool_usage("s").v4.unwrap();
    assert_eq!((rest.available, rest.using), (65534 - 1, 1));
}

#[test]
fn bug_4_a_subnet_update_keeps_pools_and_excluded_addresses_apart() {
    let mut ipam = subnet("10.0.0.0/24", "", &["10.0.0.22"]);
    ipam.upsert_pool("p", "s", &ranges(&["10.0.0.20..10.0.0.23"])).unwrap();
    ipam.upsert_subnet(spec("10.0.0.0/23", "", &["10.0.0.22", "10.0.0.1"])).unwrap();
    assert_eq!(ipam.pool_usage("p").v4.unwrap().available_ranges, "10.0.0.20-10.0.0.21,10.0.0.23");
    let rest = ipam.default_pool_usage("s").v4.unwrap();
    assert_eq!(rest.available_ranges, "10.0.0.2-10.0.0.19,10.0.0.24-10.0.1.254");
}

#[test]
fn bug_5_a_released_excluded_address_is_not_handed_out_by_a_later_pool() {
    let mut ipam = subnet("10.0.0.0/24", "", &["10.0.0.20"]);
    ipam.allocate(&fixed("a", "10.0.0.20")).unwrap();
    ipam.release("a.ns");
    ipam.upsert_pool("p", "s", &ranges(&["10.0.0.20"])).unwrap();
    refused(&mut ipam, &wish("b", Wish::Pool("p".into())), "NoAvailableAddress");
}

#[test]
fn bug_6_a_static_mac_is_not_kept_when_the_address_is_refused() {
    let mut ipam = subnet("10.0.0.0/24", "", &[]);
    let mac = MacWish::Static("02:00:00:00:00:01".parse().unwrap());
    refused(&mut ipam, &Request { mac, ..fixed("a", "10.9.0.1") }, "AddressOutOfRange");
    ipam.allocate(&Request { mac, ..ask("b") }).unwrap();
}

/// Upstream reads its map of subnets without a lock. Here the allocator is one plain value: shared
/// reading needs a shared reference, changing an exclusive one, which the compiler checks.
#[test]
fn bug_7_the_allocator_is_one_value_without_hidden_sharing() {
    fn plain<T: Send + Sync + Clone>(_: &T) {}
    let mut ipam = subnet("10.0.0.0/24", "", &[]);
    plain(&ipam);
    let snapshot = ipam.clone();
    ipam.allocate(&ask("a")).unwrap();
    assert_eq!((v4(&snapshot).using, v4(&ipam).using), (0, 1));
}

#[test]
fn ten_thousand_allocations() {
    let mut ipam = subnet("10.0.0.0/16,fd00::/64", "10.0.0.1,fd00::1", &[]);
    let requests: Vec<Request> = (0..10_000u64)
        .map(|i| Request { mac: MacWish::Random(i), ..ask(&format!("pod-{i}")) })
        .collect();
    let start = std::time::Instant::now();
    let given: Vec<Allocation> = requests.iter().map(|r| ipam.allocate(r).unwrap()).collect();
    let allocated = start.elapsed();
    assert_eq!(given[9_999].addresses.to_string(), "10.0.39.17,fd00::2711");
    let macs: std::collections::BTreeSet<_> = given.iter().map(|a| a.mac).collect();
    assert_eq!(macs.len(), 10_000);
    // The work of one more is that of the first: sets are single ranges.
    assert_eq!(v4(&ipam).using_ranges, "10.0.0.2-10.0.39.17");
    assert_eq!(v4(&ipam).available_ranges, "10.0.39.18-10.0.255.254");
    let start = std::time::Instant::now();
    requests.iter().step_by(2).for_each(|r| drop(ipam.release(&r.port).unwrap()));
    let released = start.elapsed();
    assert_eq!(v4(&ipam).using, 5_000);
    println!("10,000 dual-stack allocations {allocated:?}, 5,000 releases {released:?}");
}
