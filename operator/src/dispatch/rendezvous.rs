//! Which endpoint of a pool runs an attempt: highest hash of (UID, name of the endpoint) first.
//!
//! Every operator, before and after a restart, comes to the same order without asking anybody, and an endpoint
//! that joins or leaves a pool moves only the Executions that it gains or loses. Names count, not addresses: an
//! executor that moves to another address keeps its journal and its share.

use requiem_model::BlobDigest;

use super::Endpoint;

/// An executor of a pool, and what is believed about it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Whether it is given new attempts. One that is not may still have some.
    pub takes: bool,
    /// Whether it has a free slot, as far as this process knows.
    pub free: bool,
    /// Why it cannot be asked now, though it may have attempts.
    pub absent: Option<String>,
}

/// The candidates in the order in which this UID prefers them.
pub fn ranked<'a>(uid: &str, candidates: impl IntoIterator<Item = &'a Candidate>) -> Vec<&'a Candidate> {
    let score = |one: &Candidate| BlobDigest::of(format!("{uid}\n{}", one.endpoint.name).as_bytes());
    let mut order: Vec<&Candidate> = candidates.into_iter().collect();
    order.sort_by_cached_key(|candidate| std::cmp::Reverse(score(candidate)));
    order
}

/// The endpoint on which attempt `n` (from 1) is started: the first with a free slot, else the first of all, in an order
/// that begins one further after each attempt.
pub fn choose<'a>(
    uid: &str,
    n: u32,
    candidates: impl IntoIterator<Item = &'a Candidate>,
) -> Option<&'a Endpoint> {
    let mut order = ranked(uid, candidates);
    let first = usize::try_from(n.saturating_sub(1)).ok()?.checked_rem(order.len())?;
    order.rotate_left(first);
    let free = order.iter().find(|candidate| candidate.free);
    free.or(order.first()).map(|candidate| &candidate.endpoint)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn endpoints(names: &[&str]) -> Vec<Candidate> {
        let candidate = |name: &&str| Candidate {
            endpoint: Endpoint {
                name: (*name).to_owned(),
                url: format!("https://{name}:8443"),
                ..Endpoint::default()
            },
            takes: true,
            free: true,
            absent: None,
        };
        names.iter().map(candidate).collect()
    }

    #[test]
    fn the_order_of_the_list_does_not_matter() {
        let (one, other) = (endpoints(&["a", "b", "c"]), endpoints(&["c", "a", "b"]));
        for n in 0..100 {
            let uid = format!("uid-{n}");
            assert_eq!(ranked(&uid, &one), ranked(&uid, &other));
        }
    }

    #[test]
    fn only_what_an_endpoint_gains_or_loses_moves() {
        let (before, after) = (endpoints(&["a", "b", "c"]), endpoints(&["a", "b", "c", "d"]));
        let mut moved = 0;
        for n in 0..1000 {
            let uid = format!("uid-{n}");
            let (old, new) = (choose(&uid, 1, &before), choose(&uid, 1, &after));
            if old != new {
                assert_eq!(new.unwrap().name, "d", "{uid} moved between endpoints that stayed");
                moved += 1;
            }
        }
        assert!((150..350).contains(&moved), "{moved} of 1000 moved to the fourth endpoint");
    }

    #[test]
    fn load_is_spread_and_retries_go_elsewhere() {
        let pool = endpoints(&["a", "b", "c"]);
        let mut load: BTreeMap<&str, u32> = BTreeMap::new();
        for n in 0..900 {
            let uid = format!("uid-{n}");
            *load.entry(&choose(&uid, 1, &pool).unwrap().name).or_default() += 1;
            assert_ne!(choose(&uid, 1, &pool), choose(&uid, 2, &pool));
            assert_eq!(choose(&uid, 1, &pool), choose(&uid, 4, &pool));
        }
        assert!(load.values().all(|count| (200..400).contains(count)), "{load:?}");
    }

    #[test]
    fn a_pool_without_endpoints_has_no_choice() {
        assert_eq!(choose("uid", 1, &[]), None);
    }

    #[test]
    fn a_free_slot_comes_before_the_order_and_the_order_decides_among_equals() {
        let mut pool = endpoints(&["a", "b", "c"]);
        let name = |pool: &[Candidate], n| choose("uid", n, pool).unwrap().name.clone();
        let order: Vec<String> =
            ranked("uid", &pool).iter().map(|candidate| candidate.endpoint.name.clone()).collect();
        assert_eq!([1, 2, 3].map(|n| name(&pool, n)), order[..]);
        pool.iter_mut().for_each(|candidate| candidate.free = candidate.endpoint.name == order[2]);
        assert_eq!([1, 2, 3].map(|n| name(&pool, n)), [&order[2]; 3].map(String::clone));
        pool.iter_mut().for_each(|candidate| candidate.free = false);
        assert_eq!([1, 2, 3].map(|n| name(&pool, n)), order[..]);
    }
}
