//! Which endpoint of a pool runs an attempt: highest hash of (UID, name of the endpoint) first.
//!
//! Every operator, before and after a restart, comes to the same order without asking anybody, and an endpoint
//! that joins or leaves a pool moves only the Executions that it gains or loses. Names count, not addresses: an
//! executor that moves to another address keeps its journal and its share.

use requiem_model::BlobDigest;

use super::Endpoint;

/// The endpoints in the order in which this UID prefers them.
pub fn ranked<'a>(uid: &str, endpoints: &'a [Endpoint]) -> Vec<&'a Endpoint> {
    let score = |endpoint: &Endpoint| BlobDigest::of(format!("{uid}\n{}", endpoint.name).as_bytes());
    let mut order: Vec<&Endpoint> = endpoints.iter().collect();
    order.sort_by_cached_key(|endpoint| std::cmp::Reverse(score(endpoint)));
    order
}

/// The endpoint on which attempt `n` (from 1) is started: the next one in the order after each attempt.
pub fn choose<'a>(uid: &str, n: u32, endpoints: &'a [Endpoint]) -> Option<&'a Endpoint> {
    let order = ranked(uid, endpoints);
    let index = usize::try_from(n.saturating_sub(1)).ok()?.checked_rem(order.len())?;
    order.get(index).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn endpoints(names: &[&str]) -> Vec<Endpoint> {
        let endpoint = |name: &&str| Endpoint {
            name: (*name).to_owned(),
            url: format!("https://{name}:8443"),
            server_name: None,
        };
        names.iter().map(endpoint).collect()
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
}
