//! A block of addresses with holes, as a list of blocks.

use super::{Cidr, ip_from_number};

impl Cidr {
    /// The fewest blocks that hold every address of `self` that is in none of `holes`. Holes of
    /// another family or outside the block cut nothing; the result is in ascending order.
    ///
    /// An address set made of it says the same as `ip4.src == $allow && ip4.src != $except`,
    /// which OVN would multiply out: up to 32 flows for each hole, times each other hole.
    pub fn without(self, holes: &[Cidr]) -> Vec<Cidr> {
        let holes: Vec<Cidr> = holes.iter().copied().filter(|h| self.overlaps(*h)).collect();
        let mut left = Vec::new();
        cut(self.network(), &holes, &mut left);
        left
    }

    /// The two halves of the block, the lower first; `None` of a single address.
    pub fn halves(self) -> Option<(Cidr, Cidr)> {
        let prefix = self.prefix + 1;
        let bits = self.family().bits();
        if prefix > bits {
            return None;
        }
        let upper = self.first_number() | 1u128 << (bits - prefix);
        let low = Cidr { address: self.network().address, prefix };
        Some((low, Cidr { address: ip_from_number(self.family(), upper), prefix }))
    }
}

fn cut(block: Cidr, holes: &[Cidr], left: &mut Vec<Cidr>) {
    let near: Vec<Cidr> = holes.iter().copied().filter(|h| h.overlaps(block)).collect();
    if near.is_empty() {
        left.push(block);
    } else if !near.iter().any(|h| h.contains_cidr(block))
        && let Some((low, high)) = block.halves()
    {
        cut(low, &near, left);
        cut(high, &near, left);
    }
}
