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
