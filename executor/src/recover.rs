//! What an executor does with the journal of its predecessor: small streams that only the journal kept go
//! back into the store, if the store lost them.

use requiem_cas::{Durability, Store, StoreError, Tenant};

use crate::journal::{InlineBlob, Phase, Replay};

/// Streams carried by the journal are at most this long.
const LIMIT: u64 = 1 << 20;

/// Makes sure that the store has every stream that a sealed record carries. Gives back how many it lacked.
///
/// # Errors
/// The store cannot take them.
pub(crate) fn restore_streams(store: &Store, replay: &Replay) -> Result<u64, StoreError> {
    let mut restored = 0;
    for logged in replay.attempts.values() {
        let Phase::Sealed { blobs, .. } = &logged.phase else { continue };
        if blobs.is_empty() {
            continue;
        }
        let tenant = store.tenant(&Tenant::parse(&logged.asked.identity.namespace)?)?;
        for blob in blobs {
            restored += u64::from(restore(&tenant, blob)?);
        }
    }
    Ok(restored)
}

fn restore(tenant: &requiem_cas::TenantStore, blob: &InlineBlob) -> Result<bool, StoreError> {
    match tenant.get_bytes(&blob.digest, LIMIT) {
        Ok(_whole) => return Ok(false),
        Err(StoreError::NotFound { .. } | StoreError::Corrupt { .. }) => {}
        Err(error) => return Err(error),
    }
    // A record is authentic as a whole, so its content has its digest; anything else is not put.
    let Some(bytes) = blob.bytes() else { return Ok(false) };
    let receipt = tenant.put_bytes(&bytes, Durability::Volatile)?;
    tracing::warn!(digest = %receipt.digest, "a stream was restored from the journal");
    Ok(true)
}
