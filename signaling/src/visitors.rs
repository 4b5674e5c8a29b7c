//! Where clients come from, and how much one place may hold open at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

/// The address that a request comes from, behind proxies too; whoever serves HTTP puts it into the
/// request's extensions. A request without it is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visitor(pub IpAddr);

/// The part of an address that one household or office has: all of IPv4, the first half of IPv6.
pub fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

/// Why there is no place left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Not for this address.
    Address,
    /// Not for anybody.
    All,
}

/// Places that are taken and given back, counted in all and per address.
#[derive(Debug)]
pub struct Places {
    in_all: usize,
    per_address: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    by_block: HashMap<IpAddr, usize>,
}

/// One place; given back when dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    block: Option<IpAddr>,
}

impl Places {
    /// So many places; 0 is no bound.
    pub fn new(in_all: usize, per_address: usize) -> Arc<Places> {
        Arc::new(Places {
            in_all,
            per_address,
            taken: Mutex::default(),
        })
    }

    /// Takes a place; without an address it is counted in all only.
    pub fn take(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Place, Full> {
        let mut taken = self.taken.lock().expect("no panic while counting");
        if self.in_all != 0 && taken.in_all >= self.in_all {
            return Err(Full::All);
        }
        let block = address.map(block);
        if let Some(block) = block {
            let here = taken.by_block.get(&block).copied().unwrap_or_default();
            if self.per_address != 0 && here >= self.per_address {
                return Err(Full::Address);
            }
            taken.by_block.insert(block, here + 1);
        }
        taken.in_all += 1;
        Ok(Place {
            places: self.clone(),
            block,
        })
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.lock().expect("no panic while counting").in_all
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().expect("no panic while counting");
        taken.in_all -= 1;
        if let Some(block) = self.block
            && let Some(here) = taken.by_block.get_mut(&block)
        {
            *here -= 1;
            if *here == 0 {
                taken.by_block.remove(&block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn an_address_has_its_share_and_others_have_theirs() {
        let places = Places::new(4, 2);
        let first = places.take(address("192.0.2.1")).unwrap();
        let _second = places.take(address("::ffff:192.0.2.1")).unwrap();
        assert_eq!(
            places.take(address("192.0.2.1")).unwrap_err(),
            Full::Address
        );
        let _third = places.take(address("192.0.2.2")).unwrap();
        let _fourth = places.take(None).unwrap();
        assert_eq!(places.take(None).unwrap_err(), Full::All);
        drop(first);
        assert!(places.take(address("192.0.2.1")).is_ok());
        assert_eq!(places.taken(), 3);
    }

    #[test]
    fn an_office_is_one_block_of_ipv6() {
        let places = Places::new(0, 1);
        let _one = places.take(address("2001:db8::1")).unwrap();
        assert_eq!(
            places.take(address("2001:db8::2")).unwrap_err(),
            Full::Address
        );
        let other = places.take(address("2001:db8:0:1::1")).unwrap();
        drop(other);
        assert_eq!(
            places.taken.lock().unwrap().by_block.len(),
            1,
            "nothing stays behind"
        );
    }
}
