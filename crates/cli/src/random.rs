//! Random numbers, from the kernel.

use std::fs::File;
use std::io::Read;

use crate::error::CommandError;

/// So many random bytes.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], CommandError> {
    let mut bytes = [0; N];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).map_err(|error| {
        let message = format!("there is no randomness: {error}");
        CommandError::unusable("Environment", message, "make /dev/urandom readable")
    })?;
    Ok(bytes)
}

/// At most `count` of `items`, each with the same chance.
pub(crate) fn choose<T>(mut items: Vec<T>, count: usize) -> Result<Vec<T>, CommandError> {
    let count = count.min(items.len());
    for at in 0..count {
        let rest = (items.len() - at) as u64;
        // The remainder of 64 random bits favours none by more than one in 2^40.
        let pick = u64::from_le_bytes(bytes()?) % rest;
        items.swap(at, at + usize::try_from(pick).unwrap_or_default());
    }
    items.truncate(count);
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_chosen_at_some_time_and_none_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let chosen = choose((0..10).collect(), 3).unwrap();
            assert_eq!(chosen.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
            seen.extend(chosen);
        }
        assert_eq!(seen.len(), 10);
        assert_eq!(choose(vec![1, 2], 5).unwrap().len(), 2);
    }
}
