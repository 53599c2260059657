//! Merkle trees: the shape of RFC 6962, with own contexts for leaf, node and root.
//!
//! - leaf hash: BLAKE3 `derive_key` (leaf context) over `u16be len(tag) ‖ tag ‖ u64be len(body) ‖ body`;
//! - node hash: `derive_key` (node context) over `left ‖ right`;
//! - tree hash: a single leaf is its own tree hash; n > 1 leaves are split at the largest power of two
//!   below n;
//! - root: `derive_key` (root context of the caller) over `u64be leafCount ‖ tree hash`.
//!
//! Tags strictly increase byte-wise, so a set of facts has one tree. The contexts keep a node from posing
//! as a leaf, and the count inside the root keeps a repeated leaf from passing unseen. Inclusion proofs
//! are checked as in RFC 9162, section 2.1.3.2.

use blake3::Hasher;
use requiem_model::digest::{context, derive};

/// Most leaves of one tree.
pub const MAX_LEAVES: usize = 4096;

/// One fact: a tag that says what it is, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// What the fact is; orders the leaves.
    pub tag: String,
    /// The fact.
    pub body: Vec<u8>,
}

/// Why leaves make no tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// There is no leaf.
    #[error("there is no leaf")]
    Empty,
    /// Tags do not strictly increase.
    #[error("leaf tag {0:?} does not come after the one before it")]
    Order(String),
    /// Too many leaves, or a tag too long for its length field.
    #[error("{0}")]
    Bounds(&'static str),
}

impl TreeError {
    /// Stable reason code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "E_EMPTY",
            Self::Order(_) => "E_LEAF_ORDER",
            Self::Bounds(_) => "E_BOUNDS",
        }
    }
}

/// A tree with at least one leaf.
#[derive(Debug, Clone)]
pub struct Tree {
    tags: Vec<String>,
    hashes: Vec<[u8; 32]>,
}

impl Tree {
    /// Hashes the leaves.
    ///
    /// # Errors
    /// No leaf, too many, a tag that is too long, or tags that do not strictly increase.
    pub fn build(leaves: &[Leaf]) -> Result<Self, TreeError> {
        if leaves.is_empty() {
            return Err(TreeError::Empty);
        }
        if leaves.len() > MAX_LEAVES {
            return Err(TreeError::Bounds("there are more than 4096 leaves"));
        }
        if let Some(pair) = leaves.windows(2).find(|pair| pair[0].tag >= pair[1].tag) {
            return Err(TreeError::Order(pair[1].tag.clone()));
        }
        let mut hasher = LeafHasher::new();
        let hashes =
            leaves.iter().map(|leaf| hasher.hash(&leaf.tag, &leaf.body)).collect::<Result<_, _>>()?;
        let tags = leaves.iter().map(|leaf| leaf.tag.clone()).collect();
        Ok(Self { tags, hashes })
    }

    /// Number of leaves.
    pub const fn leaf_count(&self) -> u64 {
        self.hashes.len() as u64
    }

    /// The root in `context`.
    pub fn root(&self, context: &'static str) -> [u8; 32] {
        root_of(context, self.leaf_count(), &tree_hash(&mut NodeHasher::new(), &self.hashes))
    }

    /// Place of the leaf with `tag`.
    pub fn index_of(&self, tag: &str) -> Option<usize> {
        self.tags.binary_search_by(|held| held.as_str().cmp(tag)).ok()
    }

    /// The siblings from leaf `index` up to the tree hash.
    pub fn path(&self, index: usize) -> Option<Vec<[u8; 32]>> {
        if index >= self.hashes.len() {
            return None;
        }
        let mut path = Vec::new();
        collect_path(&mut NodeHasher::new(), &self.hashes, index, &mut path);
        Some(path)
    }
}

fn tree_hash(node: &mut NodeHasher, hashes: &[[u8; 32]]) -> [u8; 32] {
    match hashes {
        [leaf] => *leaf,
        many => {
            let (left, right) = many.split_at(split_point(many.len()));
            let (left, right) = (tree_hash(node, left), tree_hash(node, right));
            node.hash(&left, &right)
        }
    }
}

fn collect_path(node: &mut NodeHasher, hashes: &[[u8; 32]], index: usize, path: &mut Vec<[u8; 32]>) {
    if hashes.len() < 2 {
        return;
    }
    let at = split_point(hashes.len());
    let (left, right) = hashes.split_at(at);
    if index < at {
        collect_path(node, left, index, path);
        path.push(tree_hash(node, right));
    } else {
        collect_path(node, right, index - at, path);
        path.push(tree_hash(node, left));
    }
}

/// Node hashing. The context is set up once: a reset keeps it, and costs less than a copy.
#[derive(Debug)]
struct NodeHasher(Hasher);

impl NodeHasher {
    fn new() -> Self {
        Self(Hasher::new_derive_key(context::PROOF_NODE))
    }

    fn hash(&mut self, left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
        let mut both = [0; 64];
        both[..32].copy_from_slice(left);
        both[32..].copy_from_slice(right);
        *self.0.reset().update(&both).finalize().as_bytes()
    }
}

/// Leaf hashing, with context and buffer set up once.
#[derive(Debug)]
struct LeafHasher {
    hasher: Hasher,
    buffer: Vec<u8>,
}

impl LeafHasher {
    fn new() -> Self {
        Self { hasher: Hasher::new_derive_key(context::PROOF_LEAF), buffer: Vec::new() }
    }

    fn hash(&mut self, tag: &str, body: &[u8]) -> Result<[u8; 32], TreeError> {
        let length =
            u16::try_from(tag.len()).map_err(|_| TreeError::Bounds("a tag is longer than 65535 bytes"))?;
        self.buffer.clear();
        self.buffer.extend_from_slice(&length.to_be_bytes());
        self.buffer.extend_from_slice(tag.as_bytes());
        self.buffer.extend_from_slice(&(body.len() as u64).to_be_bytes());
        self.buffer.extend_from_slice(body);
        Ok(*self.hasher.reset().update(&self.buffer).finalize().as_bytes())
    }
}

/// The hash of one leaf.
///
/// # Errors
/// A tag that is longer than its length field can say.
pub fn leaf_hash(tag: &str, body: &[u8]) -> Result<[u8; 32], TreeError> {
    LeafHasher::new().hash(tag, body)
}

/// The root that a leaf, its place, the number of leaves and its siblings lead to; nothing if the number of
/// siblings is not exactly the one that place and count demand.
pub fn root_from_path(
    context: &'static str,
    leaf: [u8; 32],
    index: u64,
    leaf_count: u64,
    siblings: &[[u8; 32]],
) -> Option<[u8; 32]> {
    if index >= leaf_count {
        return None;
    }
    let mut node = NodeHasher::new();
    let (mut place, mut last, mut hash) = (index, leaf_count - 1, leaf);
    for sibling in siblings {
        if last == 0 {
            return None;
        }
        if place & 1 == 1 || place == last {
            hash = node.hash(sibling, &hash);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            hash = node.hash(&hash, sibling);
        }
        place >>= 1;
        last >>= 1;
    }
    (last == 0).then(|| root_of(context, leaf_count, &hash))
}

fn root_of(context: &'static str, leaf_count: u64, tree_hash: &[u8; 32]) -> [u8; 32] {
    derive(context, &[&leaf_count.to_be_bytes(), tree_hash])
}

/// The largest power of two below `count`, which is at least 2.
const fn split_point(count: usize) -> usize {
    1 << (usize::BITS - 1 - (count - 1).leading_zeros())
}
