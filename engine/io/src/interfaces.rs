//! The addresses of this machine, as candidates need them (RFC 8445 section 5.1.1.1).
//!
//! Not here: which of them a client is told (Python's `sfu.ice`).

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libc::{sockaddr_in, sockaddr_in6};

use crate::sys::check;

/// Frees the kernel's answer, whatever happens while it is read.
struct Answer(*mut libc::ifaddrs);

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: `getifaddrs` made it, and nobody else frees it.
        unsafe { libc::freeifaddrs(self.0) };
    }
}

/// Every address of every interface that is up, with the interface's name, in the kernel's order.
///
/// # Errors
/// What the system says.
pub fn local_addresses() -> io::Result<Vec<(String, IpAddr)>> {
    let mut first = std::ptr::null_mut();
    // SAFETY: a live pointer for the kernel's list.
    check(unsafe { libc::getifaddrs(&mut first) })?;
    let answer = Answer(first);
    let mut found = Vec::new();
    let mut at = answer.0;
    // SAFETY: a null-terminated list that lives as long as `answer`.
    while let Some(entry) = unsafe { at.as_ref() } {
        at = entry.ifa_next;
        if entry.ifa_flags & libc::IFF_UP as libc::c_uint == 0 || entry.ifa_addr.is_null() {
            continue;
        }
        // SAFETY: not null; every socket address begins with its family, which says what it is.
        let ip: IpAddr = unsafe {
            match i32::from((*entry.ifa_addr).sa_family) {
                libc::AF_INET => {
                    let raw = entry.ifa_addr.cast::<sockaddr_in>().read_unaligned();
                    Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr)).into()
                }
                libc::AF_INET6 => {
                    let raw = entry.ifa_addr.cast::<sockaddr_in6>().read_unaligned();
                    Ipv6Addr::from(raw.sin6_addr.s6_addr).into()
                }
                _ => continue,
            }
        };
        let name = if entry.ifa_name.is_null() {
            String::new()
        } else {
            // SAFETY: not null, and a C string that lives as long as `answer`.
            let name = unsafe { CStr::from_ptr(entry.ifa_name) };
            name.to_string_lossy().into_owned()
        };
        found.push((name, ip));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_among_them() {
        let found = local_addresses().expect("interfaces");
        assert!(found.contains(&("lo".into(), Ipv4Addr::LOCALHOST.into())));
    }
}
