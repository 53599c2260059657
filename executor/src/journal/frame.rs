//! Bytes of the journal file: a header and a sequence of checked frames. Pure; see `docs/format/journal.md`.
//!
//! `header = magic (8) · seed (32) · check (8)`, `frame = length (4) · check (16) · payload`. The check
//! of a frame is keyed with the file's seed and covers the frame's own offset, so that a frame of another
//! file, of an earlier life of the same blocks, or at another place is never taken for one of ours.

/// First bytes of every journal; the digit is the format version.
pub(crate) const MAGIC: &[u8; 8] = b"RQMJRNL1";
/// Length of the header.
pub(crate) const HEADER_BYTES: usize = 48;
/// Length of what precedes a payload.
pub(crate) const PREFIX_BYTES: usize = 20;
/// Longest payload. A body has at most 256 KiB, escaping at most doubles it, and two small streams follow.
pub(crate) const MAX_PAYLOAD: usize = 1 << 20;

/// Random value that belongs to one file.
pub(crate) type Seed = [u8; 32];

/// What a scan of a whole file found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scan<'a> {
    /// Payloads of all authentic frames, in file order.
    pub(crate) payloads: Vec<&'a [u8]>,
    /// Bytes up to which the file is sound without a gap.
    pub(crate) sound: usize,
    /// Whether authentic frames follow an unreadable stretch: damage, not a torn tail.
    pub(crate) damaged: bool,
}

/// The header of a file with `seed`.
pub(crate) fn header(seed: &Seed) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(seed);
    bytes.extend_from_slice(&header_check(seed));
    bytes
}

/// The seed in the header of `file`, if the header is sound.
pub(crate) fn seed_of(file: &[u8]) -> Option<Seed> {
    let header: &[u8] = file.get(..HEADER_BYTES)?;
    let seed: Seed = header[8..40].try_into().ok()?;
    (header[..8] == MAGIC[..] && header[40..] == header_check(&seed)).then_some(seed)
}

/// The frame that carries `payload` at `offset`. The caller keeps to [`MAX_PAYLOAD`].
pub(crate) fn frame(seed: &Seed, offset: u64, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + payload.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&check(seed, offset, payload));
    bytes.extend_from_slice(payload);
    bytes
}

/// Reads every authentic frame of `file`, skipping unreadable stretches.
pub(crate) fn scan<'a>(seed: &Seed, file: &'a [u8]) -> Scan<'a> {
    let mut found = Scan { payloads: Vec::new(), sound: HEADER_BYTES.min(file.len()), damaged: false };
    let mut at = HEADER_BYTES;
    let mut gap = false;
    while at < file.len() {
        if let Some(payload) = read(seed, file, at) {
            found.payloads.push(payload);
            found.damaged |= gap;
            at += PREFIX_BYTES + payload.len();
            if !found.damaged {
                found.sound = at;
            }
        } else {
            gap = true;
            at += 1;
        }
    }
    found
}

fn read<'a>(seed: &Seed, file: &'a [u8], at: usize) -> Option<&'a [u8]> {
    let prefix = file.get(at..at + PREFIX_BYTES)?;
    let length = usize::try_from(u32::from_le_bytes(prefix[..4].try_into().ok()?)).ok()?;
    if length > MAX_PAYLOAD {
        return None;
    }
    let payload = file.get(at + PREFIX_BYTES..at + PREFIX_BYTES + length)?;
    let offset = u64::try_from(at).ok()?;
    (prefix[4..] == check(seed, offset, payload)).then_some(payload)
}

fn check(seed: &Seed, offset: u64, payload: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_keyed(seed);
    hasher.update(&offset.to_le_bytes());
    hasher.update(payload);
    first(hasher.finalize().as_bytes())
}

fn header_check(seed: &Seed) -> [u8; 8] {
    first(blake3::keyed_hash(seed, MAGIC).as_bytes())
}

fn first<const N: usize>(bytes: &[u8; 32]) -> [u8; N] {
    let mut short = [0; N];
    short.copy_from_slice(&bytes[..N]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: Seed = [7; 32];

    fn file(payloads: &[&[u8]]) -> Vec<u8> {
        let mut bytes = header(&SEED);
        for payload in payloads {
            bytes.extend(frame(&SEED, bytes.len() as u64, payload));
        }
        bytes
    }

    #[test]
    fn what_was_framed_is_read_back() {
        let bytes = file(&[b"one", b"", b"three"]);
        assert_eq!(seed_of(&bytes), Some(SEED));
        let found = scan(&SEED, &bytes);
        assert_eq!(found.payloads, [b"one".as_slice(), b"", b"three"]);
        assert_eq!((found.sound, found.damaged), (bytes.len(), false));
    }

    #[test]
    fn a_file_cut_at_any_byte_keeps_its_whole_frames() {
        let bytes = file(&[b"one", b"two", b"three"]);
        let ends = [HEADER_BYTES, HEADER_BYTES + 23, HEADER_BYTES + 46, bytes.len()];
        for cut in HEADER_BYTES..=bytes.len() {
            let found = scan(&SEED, &bytes[..cut]);
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            assert_eq!((found.payloads.len(), found.sound, found.damaged), (whole, ends[whole], false));
        }
    }

    #[test]
    fn a_flipped_bit_costs_one_frame_and_is_told_from_a_torn_tail() {
        let bytes = file(&[b"one", b"two", b"three"]);
        for at in HEADER_BYTES..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                let found = scan(&SEED, &bad);
                assert_eq!(found.payloads.len(), 2, "byte {at}, bit {bit}");
                assert_eq!(found.damaged, at < HEADER_BYTES + 46, "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_frame_of_another_file_or_place_is_not_ours() {
        let bytes = file(&[b"one"]);
        let mut moved = bytes.clone();
        moved.insert(HEADER_BYTES, 0);
        assert!(scan(&SEED, &moved).payloads.is_empty());
        assert!(scan(&[8; 32], &bytes).payloads.is_empty());
    }

    #[test]
    fn a_damaged_header_is_refused() {
        let bytes = file(&[]);
        for at in 0..HEADER_BYTES {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(seed_of(&bad), None, "byte {at}");
            assert_eq!(seed_of(&bytes[..at]), None);
        }
    }
}
