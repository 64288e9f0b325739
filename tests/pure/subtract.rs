//! Blocks of addresses with holes.

use kube_ovn::net::Cidr;

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn without(block: &str, holes: &[&str]) -> Vec<String> {
    let holes: Vec<Cidr> = holes.iter().map(|h| cidr(h)).collect();
    cidr(block).without(&holes).iter().map(Cidr::to_string).collect()
}

#[test]
fn a_block_keeps_all_but_its_holes() {
    assert_eq!(without("10.0.0.0/8", &[]), ["10.0.0.0/8"]);
    assert_eq!(without("10.0.0.0/30", &["10.0.0.1/32"]), ["10.0.0.0/32", "10.0.0.2/31"]);
    assert_eq!(without("10.0.0.7/30", &["10.0.0.7/32"]), ["10.0.0.4/31", "10.0.0.6/32"]);
    // A hole around the block, one of the other family, one elsewhere.
    assert!(without("10.0.0.0/8", &["0.0.0.0/0"]).is_empty());
    assert_eq!(without("10.0.0.0/8", &["::/0", "11.0.0.0/8"]), ["10.0.0.0/8"]);
    // Holes in holes and side by side.
    assert_eq!(
        without("10.0.0.0/29", &["10.0.0.0/31", "10.0.0.0/32", "10.0.0.2/31"]),
        ["10.0.0.4/30"]
    );
    assert_eq!(without("::/0", &["8000::/1"]), ["::/1"]);
    assert_eq!(without("::/0", &["::1/128"]).len(), 128);
}

#[test]
fn every_address_is_on_the_right_side() {
    let block = cidr("192.168.0.0/24");
    for seed in 0u32..200 {
        let byte = |n: u32| (seed.wrapping_mul(2_654_435_761) >> n & 0xff) as u8;
        let holes: Vec<Cidr> = [(0, 25 + seed % 8), (8, 24 + seed % 5), (16, 32)]
            .map(|(n, prefix)| Cidr::new([192, 168, 0, byte(n)].into(), prefix as u8).unwrap())
            .into();
        let left = block.without(&holes);
        for last in 0..=255u8 {
            let ip = [192, 168, 0, last].into();
            let held = left.iter().filter(|b| b.contains(ip)).count();
            let wanted = usize::from(!holes.iter().any(|h| h.contains(ip)));
            assert_eq!(held, wanted, "{ip} of {holes:?}");
        }
    }
}
