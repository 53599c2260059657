//! The machinery of fuzzing, for parsers of several rooms: mutations of a corpus, a short run with fixed seeds or a long one.

#![allow(clippy::print_stdout, reason = "a long run says how far it came")]

use std::time::{Duration, Instant};

/// Inputs of each target in a short run.
const SHORT: u64 = 4_000;
/// Longest input that mutations make.
const MAX_BYTES: usize = 64 * 1024;

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }
}

/// Pieces that parsers stumble over.
const PIECES: [&str; 34] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\\",
    "\\u0000",
    "\\ud800",
    "\\u00e9",
    "null",
    "true",
    "-0",
    "1e9",
    "0.5",
    "9007199254740992",
    "18446744073709551615",
    "18446744073709551616",
    "\u{e9}",
    "\u{0}",
    "\u{7f}",
    "\u{202e}",
    "blake3:",
    "==",
    "../",
    "/",
    "requiem-bundle/1",
    "\"kind\":\"tree\"",
    "E",
    "-",
    " ",
    "\n",
    "{\"a\":1,\"a\":1}",
];

/// A few changes of one input, now and then with a part of another.
fn mutated(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(24)).min(bytes.len());
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            2 => drop(bytes.splice(at..at, PIECES[random.below(PIECES.len())].bytes())),
            3 => drop(bytes.splice(at..end, [])),
            4 => {
                let copied = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, copied));
            }
            5 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                let to = (from + random.below(200)).min(other.len());
                drop(bytes.splice(at..end, other[from..to].iter().copied()));
            }
            _ => bytes.truncate(at.max(bytes.len().saturating_sub(64))),
        }
    }
    bytes.truncate(MAX_BYTES);
    bytes
}

/// Runs a target over its corpus and mutations of it. `accepts` says whether it took the input, and checks what it took.
pub(crate) fn fuzz(name: &str, corpus: &[Vec<u8>], accepts: impl Fn(&[u8]) -> bool) {
    assert!(corpus.iter().any(|input| accepts(input)), "{name}: nothing of the corpus is accepted");
    let seconds: Option<u64> = std::env::var("REQUIEM_FUZZ_SECONDS").ok().map(|text| text.parse().unwrap());
    let seed = if seconds.is_some() { u64::from(std::process::id()) } else { 1 };
    let (mut random, begun) = (Random(seed), Instant::now());
    let (mut tried, mut accepted) = (0u64, 0u64);
    let going_on = |tried| match seconds {
        Some(seconds) => begun.elapsed() < Duration::from_secs(seconds),
        None => tried < SHORT,
    };
    while going_on(tried) {
        let input = mutated(&mut random, corpus);
        // The input of a panic is told, so that it can join the corpus.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| accepts(&input)));
        let taken = outcome.unwrap_or_else(|_| {
            panic!("{name}: seed {seed}, input {tried}: {}", String::from_utf8_lossy(&input))
        });
        accepted += u64::from(taken);
        tried += 1;
    }
    println!(
        "fuzz {name}: {tried} inputs, {accepted} accepted, seed {seed}, {:.1} s",
        begun.elapsed().as_secs_f64()
    );
}
