//! Random operations against a naive model of single addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use kube_ovn::{
    ipam::{Conflicts, Ipam, MacWish, NodeAddresses, Request, SubnetSpec, Wish},
    net::{Cidr, DualStack, Family, IpRange, RangeSet},
};
use proptest::prelude::*;

/// 10.0.0.0/27 .. /28; addresses are the last octet.
fn ip(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, n))
}

fn octet(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(_) => panic!("no v6 here"),
    }
}

#[derive(Debug, Clone)]
enum Op {
    Any(u8),
    Pool(u8, u8),
    Static(u8, u8),
    Share(u8, u8),
    Skip(u8, u8),
    Release(u8),
    Excludes(Vec<(u8, u8)>),
    Prefix(u8),
    SetPool(u8, u8, u8),
    RemovePool(u8),
    Avoid(Vec<u8>),
}

fn op() -> impl Strategy<Value = Op> {
    let port = 0..12u8;
    let address = 0..34u8;
    prop_oneof![
        8 => port.clone().prop_map(Op::Any),
        3 => (port.clone(), 0..2u8).prop_map(|(p, q)| Op::Pool(p, q)),
        3 => (port.clone(), address.clone()).prop_map(|(p, a)| Op::Static(p, a)),
        1 => (port.clone(), address.clone()).prop_map(|(p, a)| Op::Share(p, a)),
        2 => (port.clone(), address.clone()).prop_map(|(p, a)| Op::Skip(p, a)),
        6 => port.prop_map(Op::Release),
        1 => prop::collection::vec((address.clone(), 0..4u8), 0..3).prop_map(Op::Excludes),
        1 => (27..29u8).prop_map(Op::Prefix),
        1 => (0..2u8, address.clone(), 0..6u8).prop_map(|(q, a, n)| Op::SetPool(q, a, n)),
        1 => (0..2u8).prop_map(Op::RemovePool),
        1 => prop::collection::vec(address, 0..3).prop_map(Op::Avoid),
    ]
}

/// Everything by enumeration.
#[derive(Default)]
struct Model {
    prefix: u8,
    excludes: Vec<(u8, u8)>,
    pools: BTreeMap<u8, (u8, u8)>,
    avoided: BTreeSet<u8>,
    held: BTreeMap<u8, u8>,
    released: BTreeSet<u8>,
}

const GATEWAY: u8 = 1;

impl Model {
    fn usable(&self, n: u8) -> bool {
        n >= 1 && u32::from(n) < (1 << (32 - self.prefix)) - 1
    }
    fn excluded(&self, n: u8) -> bool {
        self.excludes.iter().any(|(a, len)| (*a..=a + len).contains(&n))
    }
    fn blocked(&self, n: u8) -> bool {
        n == GATEWAY || self.excluded(n) || self.avoided.contains(&n)
    }
    fn pool_of(&self, n: u8) -> Option<u8> {
        self.pools.iter().find(|(_, (a, len))| (*a..=a + len).contains(&n)).map(|(q, _)| *q)
    }
    fn holders(&self, n: u8) -> Vec<u8> {
        self.held.iter().filter(|(_, a)| **a == n).map(|(p, _)| *p).collect()
    }
    fn is_free(&self, n: u8, pool: Option<u8>) -> bool {
        self.usable(n) && !self.blocked(n) && self.holders(n).is_empty() && self.pool_of(n) == pool
    }
    fn next(&self, pool: Option<u8>, skip: Option<u8>) -> Option<u8> {
        let mut free = (0..40).filter(|n| self.is_free(*n, pool) && Some(*n) != skip);
        let mut again = free.clone();
        free.find(|n| !self.released.contains(n)).or_else(|| again.next())
    }
    /// Released addresses become free as a whole when one had to be taken.
    fn hold(&mut self, port: u8, n: u8) {
        let pool = self.pool_of(n);
        let was_released = self.released.remove(&n);
        let old = self.held.remove(&port);
        let others_free = (0..40).any(|m| {
            m != n && Some(m) != old && self.is_free(m, pool) && !self.released.contains(&m)
        });
        if was_released && !others_free {
            let pools = self.pools.clone();
            self.released.retain(|m| {
                pools.iter().find(|(_, (a, len))| (*a..=a + len).contains(m)).map(|(q, _)| *q)
                    != pool
            });
        }
        self.held.insert(port, n);
        if let Some(old) = old.filter(|o| *o != n) {
            self.gave_back(old);
        }
    }
    fn gave_back(&mut self, n: u8) {
        if self.holders(n).is_empty() && !self.blocked(n) {
            self.released.insert(n);
        }
    }
    fn forget_blocked(&mut self) {
        let keep: BTreeSet<u8> = self
            .released
            .iter()
            .copied()
            .filter(|n| self.usable(*n) && !self.blocked(*n))
            .collect();
        self.released = keep;
    }
    fn ranges(&self, member: impl Fn(u8) -> bool) -> (u128, String) {
        let mut set = RangeSet::new();
        (0..40u8).filter(|n| member(*n)).for_each(|n| set.insert(0x0a00_0000 + u128::from(n)));
        (set.count(), set.text(Family::V4))
    }
}

fn spec(model: &Model) -> SubnetSpec {
    let excludes = model.excludes.iter().map(|(a, len)| {
        IpRange::new(Family::V4, 0x0a00_0000 + u128::from(*a), 0x0a00_0000 + u128::from(a + len))
    });
    SubnetSpec {
        name: "s".into(),
        cidrs: DualStack { v4: Cidr::new(ip(0), model.prefix), v6: None },
        gateways: DualStack { v4: Some(ip(GATEWAY)), v6: None },
        excludes: excludes.collect(),
        gateway_mac: None,
        node_addresses: NodeAddresses::Avoid,
    }
}

fn request(port: u8, wish: Wish) -> Request {
    Request {
        wish,
        mac: MacWish::Random(3),
        ..Request::any(&format!("ns/{port}"), &format!("{port}.ns"), "s", 0)
    }
}

fn fixed(n: u8) -> Wish {
    Wish::Static(DualStack { v4: Some(ip(n)), v6: None })
}

fn apply(ipam: &mut Ipam, model: &mut Model, op: &Op) {
    match op {
        Op::Any(p) => dynamic(ipam, model, request(*p, Wish::Any), *p, None),
        Op::Pool(p, q) => {
            let request = request(*p, Wish::Pool(format!("p{q}").into()));
            dynamic(ipam, model, request, *p, Some(*q));
        }
        Op::Skip(p, n) => {
            let request = Request { skip: vec![ip(*n)], ..request(*p, Wish::Any) };
            dynamic(ipam, model, request, *p, None);
        }
        Op::Static(p, n) => {
            let taken = model.holders(*n).iter().any(|h| h != p);
            let allowed = model.usable(*n) && *n != GATEWAY && !taken;
            assert_eq!(ipam.allocate(&request(*p, fixed(*n))).is_ok(), allowed);
            if allowed && model.held.get(p) != Some(n) {
                model.hold(*p, *n);
            }
        }
        Op::Share(p, n) => {
            let request = Request { conflicts: Conflicts::Share, ..request(*p, fixed(*n)) };
            assert_eq!(ipam.allocate(&request).is_ok(), model.usable(*n));
            if model.usable(*n) && model.held.get(p) != Some(n) {
                model.hold(*p, *n);
            }
        }
        Op::Release(p) => {
            let gone = ipam.release(&format!("{p}.ns"));
            let was = model.held.remove(p);
            assert_eq!(gone.and_then(|a| a.addresses.v4).map(octet), was);
            was.into_iter().for_each(|n| model.gave_back(n));
        }
        Op::Excludes(excludes) => {
            model.excludes = excludes.clone();
            ipam.upsert_subnet(spec(model)).unwrap();
            model.forget_blocked();
        }
        Op::Prefix(prefix) => {
            let old = std::mem::replace(&mut model.prefix, *prefix);
            let fits = model.held.values().all(|n| model.usable(*n))
                && model.pools.values().all(|(a, len)| (*a..=a + len).any(|n| model.usable(n)));
            assert_eq!(ipam.upsert_subnet(spec(model)).is_ok(), fits);
            if !fits {
                model.prefix = old;
            }
            model.forget_blocked();
        }
        Op::SetPool(q, a, len) => set_pool(ipam, model, *q, (*a, *len)),
        Op::RemovePool(q) => {
            ipam.remove_pool(&format!("p{q}"));
            model.pools.remove(q);
        }
        Op::Avoid(addresses) => {
            ipam.set_avoided(addresses.iter().map(|n| ip(*n)));
            model.avoided = addresses.iter().copied().collect();
            model.forget_blocked();
        }
    }
}

fn dynamic(ipam: &mut Ipam, model: &mut Model, request: Request, port: u8, pool: Option<u8>) {
    let skip = request.skip.first().map(|ip| octet(*ip));
    let kept = model.held.get(&port).copied().filter(|n| Some(*n) != skip);
    let expected = kept.or_else(|| {
        if pool.is_some_and(|q| !model.pools.contains_key(&q)) {
            return None;
        }
        model.next(pool, skip)
    });
    let got = ipam.allocate(&request).ok().and_then(|a| a.addresses.v4).map(octet);
    assert_eq!(got, expected, "{request:?}");
    if kept.is_none()
        && let Some(n) = expected
    {
        model.hold(port, n);
    }
}

fn set_pool(ipam: &mut Ipam, model: &mut Model, q: u8, (a, len): (u8, u8)) {
    let first = 0x0a00_0000 + u128::from(a);
    let entry = IpRange::new(Family::V4, first, first + u128::from(len));
    let inside = (a..=a + len).any(|n| model.usable(n));
    let apart =
        model.pools.iter().all(|(other, (b, blen))| *other == q || a + len < *b || b + blen < a);
    let done = ipam.upsert_pool(&format!("p{q}"), "s", &[entry]).is_ok();
    assert_eq!(done, inside && apart);
    if done {
        model.pools.insert(q, (a, len));
    }
}

fn compare(ipam: &Ipam, model: &Model) {
    let usage = ipam.usage("s").v4.unwrap();
    let held = |n: u8| !model.holders(n).is_empty();
    let free = |n: u8| model.usable(n) && n != GATEWAY && !model.excluded(n) && !held(n);
    let gateway_alone = model
        .excludes
        .iter()
        .all(|(a, len)| (*a, *len) == (GATEWAY, 0) || !(*a..=a + len).contains(&GATEWAY));
    let counted = |n: u8| held(n) && if n == GATEWAY { gateway_alone } else { !model.excluded(n) };
    assert_eq!((usage.available, usage.available_ranges), model.ranges(free));
    assert_eq!((usage.using, usage.using_ranges), model.ranges(counted));
    for q in model.pools.keys() {
        let usage = ipam.pool_usage(&format!("p{q}")).v4.unwrap();
        let of = |n: u8| model.pool_of(n) == Some(*q);
        let available = (usage.available, usage.available_ranges);
        assert_eq!(available, model.ranges(|n| free(n) && of(n)));
        assert_eq!((usage.using, usage.using_ranges), model.ranges(|n| counted(n) && of(n)));
    }
    for (port, n) in &model.held {
        let allocation = ipam.allocation(&format!("{port}.ns")).unwrap();
        assert_eq!(allocation.addresses.v4, Some(ip(*n)));
        assert_eq!(ipam.holders("s", ip(*n)).len(), model.holders(*n).len());
    }
    assert_eq!(ipam.allocations().count(), model.held.len());
    let macs: BTreeSet<_> = ipam.allocations().map(|(_, _, a)| a.mac).collect();
    assert_eq!(macs.len(), model.held.len(), "MACs are unique");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_sequence_of_operations_agrees_with_the_model(ops in prop::collection::vec(op(), 1..60)) {
        let mut model = Model { prefix: 27, ..Model::default() };
        let mut ipam = Ipam::new();
        ipam.upsert_subnet(spec(&model)).unwrap();
        for op in &ops {
            apply(&mut ipam, &mut model, op);
            compare(&ipam, &model);
        }
    }

    #[test]
    fn releasing_everything_leaves_nothing_behind(ops in prop::collection::vec(op(), 1..60)) {
        let mut model = Model { prefix: 27, ..Model::default() };
        let mut ipam = Ipam::new();
        ipam.upsert_subnet(spec(&model)).unwrap();
        for op in &ops {
            apply(&mut ipam, &mut model, op);
        }
        for port in 0..12u8 {
            apply(&mut ipam, &mut model, &Op::Release(port));
        }
        apply(&mut ipam, &mut model, &Op::Excludes(Vec::new()));
        apply(&mut ipam, &mut model, &Op::Avoid(Vec::new()));
        for pool in 0..2u8 {
            apply(&mut ipam, &mut model, &Op::RemovePool(pool));
        }
        let usage = ipam.usage("s").v4.unwrap();
        let usable = (1u128 << (32 - model.prefix)) - 3;
        prop_assert_eq!((usage.using, usage.available), (0, usable));
    }
}
