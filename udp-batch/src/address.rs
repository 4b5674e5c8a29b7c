//! `sockaddr_in` and `sockaddr_in6` as bytes (ip(7), ipv6(7)), written and read without pointers.

use std::mem::{align_of, offset_of, size_of};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

const FAMILY: usize = offset_of!(libc::sockaddr_in, sin_family);
const PORT: usize = offset_of!(libc::sockaddr_in, sin_port);
const V4_ADDRESS: usize = offset_of!(libc::sockaddr_in, sin_addr);
const V6_FLOW: usize = offset_of!(libc::sockaddr_in6, sin6_flowinfo);
const V6_ADDRESS: usize = offset_of!(libc::sockaddr_in6, sin6_addr);
const V6_SCOPE: usize = offset_of!(libc::sockaddr_in6, sin6_scope_id);
const V4_LENGTH: usize = size_of::<libc::sockaddr_in>();
const V6_LENGTH: usize = size_of::<libc::sockaddr_in6>();

/// Room for an address of either family.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(4))]
pub(crate) struct RawAddress([u8; V6_LENGTH]);

// Both families have their family and port at the same place, and the room is aligned for both.
const _: () = {
    assert!(FAMILY == offset_of!(libc::sockaddr_in6, sin6_family));
    assert!(PORT == offset_of!(libc::sockaddr_in6, sin6_port));
    assert!(align_of::<RawAddress>() >= align_of::<libc::sockaddr_in>());
    assert!(align_of::<RawAddress>() >= align_of::<libc::sockaddr_in6>());
    assert!(V4_LENGTH <= V6_LENGTH);
};

impl RawAddress {
    pub(crate) const EMPTY: RawAddress = RawAddress([0; V6_LENGTH]);
    pub(crate) const CAPACITY: usize = V6_LENGTH;

    /// Writes `address`; returns how many bytes of the room it takes.
    pub(crate) fn write(&mut self, address: SocketAddr) -> usize {
        self.0 = [0; V6_LENGTH];
        self.put(PORT, address.port().to_be_bytes());
        match address {
            SocketAddr::V4(address) => {
                self.put(FAMILY, (libc::AF_INET as libc::sa_family_t).to_ne_bytes());
                self.put(V4_ADDRESS, address.ip().octets());
                V4_LENGTH
            }
            SocketAddr::V6(address) => {
                self.put(FAMILY, (libc::AF_INET6 as libc::sa_family_t).to_ne_bytes());
                self.put(V6_FLOW, address.flowinfo().to_ne_bytes());
                self.put(V6_ADDRESS, address.ip().octets());
                self.put(V6_SCOPE, address.scope_id().to_ne_bytes());
                V6_LENGTH
            }
        }
    }

    /// Reads what the kernel wrote; `None` when it is of neither family.
    pub(crate) fn read(&self, length: usize) -> Option<SocketAddr> {
        let family = i32::from(libc::sa_family_t::from_ne_bytes(self.get(FAMILY)));
        let port = u16::from_be_bytes(self.get(PORT));
        match family {
            libc::AF_INET if length >= V4_LENGTH => {
                let ip = Ipv4Addr::from(self.get::<4>(V4_ADDRESS));
                Some(SocketAddrV4::new(ip, port).into())
            }
            libc::AF_INET6 if length >= V6_LENGTH => {
                let ip = Ipv6Addr::from(self.get::<16>(V6_ADDRESS));
                let flow = u32::from_ne_bytes(self.get(V6_FLOW));
                let scope = u32::from_ne_bytes(self.get(V6_SCOPE));
                Some(SocketAddrV6::new(ip, port, flow, scope).into())
            }
            _ => None,
        }
    }

    fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.0[at..at + N].copy_from_slice(&bytes);
    }

    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.0[at..at + N]);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_of_another_family_or_cut_short_is_none() {
        let mut raw = RawAddress::EMPTY;
        assert_eq!(raw.read(RawAddress::CAPACITY), None);
        let length = raw.write(SocketAddr::from(([1, 2, 3, 4], 5)));
        assert_eq!(raw.read(length - 1), None);
    }

    #[test]
    fn the_bytes_are_those_of_the_manual_page() {
        let mut raw = RawAddress::EMPTY;
        assert_eq!(raw.write(SocketAddr::from(([1, 2, 3, 4], 0x0506))), 16);
        assert_eq!(raw.0[2..8], [5, 6, 1, 2, 3, 4]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            v4 in any::<(u32, u16)>(),
            v6 in any::<(u128, u16, u32, u32)>(),
        ) {
            let v4 = SocketAddr::from(SocketAddrV4::new(v4.0.into(), v4.1));
            let v6 = SocketAddr::from(SocketAddrV6::new(v6.0.into(), v6.1, v6.2, v6.3));
            let mut raw = RawAddress::EMPTY;
            for address in [v4, v6, v4] {
                let length = raw.write(address);
                prop_assert_eq!(raw.read(length), Some(address));
            }
        }
    }
}
