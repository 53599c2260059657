//! Ports of loopback, for programs that must be told one.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// From [`FIRST`] on: below what Linux gives to connections and to listeners on port 0 (ip(7), `ip_local_port_range`) and below
/// the ports of Kubernetes' Services, so that nobody is given one by chance between our look and the program's.
const COUNT: u16 = 10_000;
const FIRST: u16 = 20_000;

/// Where the next look is. Random at first, so that two processes do not look at the same ports.
static NEXT: LazyLock<AtomicU64> =
    LazyLock::new(|| AtomicU64::new(RandomState::new().build_hasher().finish() >> 1));

/// An address of loopback that nobody listens on.
///
/// # Errors
/// None can be had.
pub fn loopback() -> Result<SocketAddr> {
    let mut refusal = String::new();
    for _ in 0..COUNT {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, next()));
        match TcpListener::bind(address) {
            Ok(_closed_again) => return Ok(address),
            Err(error) => refusal = error.to_string(),
        }
    }
    Err(Error::prerequisite(
        format!("No port of 127.0.0.1 from {FIRST} to {} can be opened ({refusal})", FIRST + COUNT - 1),
        "Bring the loopback interface up (`ip link set lo up`) and allow this user to listen on it",
    ))
}

fn next() -> u16 {
    let offset = NEXT.fetch_add(1, Ordering::Relaxed) % u64::from(COUNT);
    u16::try_from(offset).map_or(FIRST, |offset| FIRST + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_nor_one_that_is_taken() {
        let held: Vec<TcpListener> =
            (0..50).map(|_| TcpListener::bind(loopback().unwrap()).unwrap()).collect();
        let ports: Vec<u16> = held.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        // Nearly a whole round later those that are held come up again.
        NEXT.fetch_add(u64::from(COUNT) - 75, Ordering::Relaxed);
        for _ in 0..50 {
            assert!(!ports.contains(&loopback().unwrap().port()));
        }
    }
}
