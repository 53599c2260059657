//! Trees and inclusion proofs: any index of any count is shown, anything else is refused.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use proptest::prelude::*;
use requiem_model::digest::context::{BUNDLE_ROOT, EXECUTION_ROOT};
use requiem_proof::tree::{Leaf, MAX_LEAVES, Tree, TreeError, leaf_hash, root_from_path};

fn leaf(tag: &str, body: &[u8]) -> Leaf {
    Leaf { tag: tag.to_owned(), body: body.to_vec() }
}

fn leaves(count: usize) -> Vec<Leaf> {
    (0..count).map(|index| leaf(&format!("{index:04}"), &[b'x'; 3])).collect()
}

fn hash(leaf: &Leaf) -> [u8; 32] {
    leaf_hash(&leaf.tag, &leaf.body).unwrap()
}

/// Leads leaf `index` of `count` to the root, after `change` had its hands on the proof.
fn leads(
    count: usize,
    index: usize,
    change: impl FnOnce(&mut [u8; 32], &mut u64, &mut u64, &mut Vec<[u8; 32]>),
) -> bool {
    let facts = leaves(count);
    let tree = Tree::build(&facts).unwrap();
    let (mut from, mut place, mut total) = (hash(&facts[index]), index as u64, count as u64);
    let mut path = tree.path(index).unwrap();
    change(&mut from, &mut place, &mut total, &mut path);
    root_from_path(EXECUTION_ROOT, from, place, total, &path) == Some(tree.root(EXECUTION_ROOT))
}

#[test]
fn every_leaf_of_every_small_tree_is_shown() {
    for count in 1..=70 {
        for index in 0..count {
            assert!(leads(count, index, |_, _, _, _| ()), "{index} of {count}");
        }
    }
}

proptest! {
    #[test]
    fn a_changed_proof_is_refused(count in 1usize..=70, seed in any::<usize>(), delta in 1u64..80, bit in 0usize..256) {
        let index = seed % count;
        let flip = |hash: &mut [u8; 32]| hash[bit / 8] ^= 1 << (bit % 8);
        let wrong = [
            leads(count, index, |leaf, _, _, _| flip(leaf)),
            leads(count, index, |_, place, _, _| *place += delta),
            leads(count, index, |_, place, _, _| *place = place.wrapping_sub(delta)),
            leads(count, index, |_, _, total, _| *total += delta),
            leads(count, index, |_, _, total, _| *total = total.saturating_sub(delta)),
            leads(count, index, |_, _, _, path| path.push([7; 32])),
            count > 1 && leads(count, index, |_, _, _, path| path.truncate(path.len() - 1)),
            count > 1 && leads(count, index, |_, _, _, path| { path.remove(0); }),
            count > 1 && leads(count, index, |_, _, _, path| { let at = bit % path.len(); flip(&mut path[at]) }),
        ];
        prop_assert_eq!(wrong, [false; 9]);
    }

    #[test]
    fn wild_proofs_never_panic(index in any::<u64>(), count in any::<u64>(), length in 0usize..70) {
        let path = vec![[1; 32]; length];
        let _root = root_from_path(EXECUTION_ROOT, [0; 32], index, count, &path);
    }
}

#[test]
fn the_number_of_siblings_must_be_exact() {
    let root =
        |count, siblings: usize| root_from_path(EXECUTION_ROOT, [1; 32], 0, count, &vec![[2; 32]; siblings]);
    for (count, exact) in [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (64, 6), (65, 7)] {
        assert!(root(count, exact).is_some());
        assert!(root(count, exact + 1).is_none(), "{count} leaves, one sibling too many");
        assert!(exact == 0 || root(count, exact - 1).is_none(), "{count} leaves, one sibling missing");
    }
    assert!(root(0, 0).is_none());
}

#[test]
fn an_inner_node_does_not_pass_as_a_leaf() {
    // The attack on trees without separation: [node(a, b)] has the root of [a, b].
    let two = leaves(2);
    let mut inner = hash(&two[0]).to_vec();
    inner.extend(hash(&two[1]));
    let honest = Tree::build(&two).unwrap().root(EXECUTION_ROOT);
    for tag in ["", "0000"] {
        let forged = Tree::build(&[leaf(tag, &inner)]).unwrap();
        assert_ne!(forged.root(EXECUTION_ROOT), honest);
    }
    // Nor can an inclusion proof begin at an inner node.
    let four = leaves(4);
    let tree = Tree::build(&four).unwrap();
    let left = tree.path(2).unwrap()[1];
    let right = tree.path(0).unwrap()[1];
    assert_ne!(root_from_path(EXECUTION_ROOT, left, 0, 2, &[right]), Some(tree.root(EXECUTION_ROOT)));
}

#[test]
fn a_repeated_last_leaf_is_another_tree() {
    let build = |tags: &[&str]| {
        let leaves: Vec<Leaf> = tags.iter().map(|tag| leaf(tag, b"")).collect();
        Tree::build(&leaves).map(|tree| tree.root(EXECUTION_ROOT))
    };
    assert_eq!(build(&["a", "b", "c", "c"]), Err(TreeError::Order("c".into())));
    assert_ne!(build(&["a", "b", "c"]), build(&["a", "b", "c", "d"]));
    // The count alone separates: same shape of hashes, other number.
    let only = leaf_hash("a", b"").unwrap();
    assert_ne!(
        root_from_path(EXECUTION_ROOT, only, 0, 1, &[]),
        root_from_path(EXECUTION_ROOT, only, 0, 2, &[only]),
    );
}

#[test]
fn tags_must_strictly_increase_and_there_must_be_one() {
    assert_eq!(Tree::build(&[]).unwrap_err().code(), "E_EMPTY");
    for tags in [["b", "a"], ["a", "a"]] {
        let error = Tree::build(&tags.map(|tag| leaf(tag, b""))).unwrap_err();
        assert_eq!(error.code(), "E_LEAF_ORDER");
    }
    assert_eq!(Tree::build(&leaves(MAX_LEAVES + 1)).unwrap_err().code(), "E_BOUNDS");
    assert!(Tree::build(&leaves(MAX_LEAVES)).is_ok());
    assert_eq!(leaf_hash(&"t".repeat(65_536), b"").unwrap_err().code(), "E_BOUNDS");
}

#[test]
fn tag_and_body_cannot_run_into_one_another() {
    let one = leaf_hash("ab", b"c").unwrap();
    assert_ne!(one, leaf_hash("a", b"bc").unwrap());
    assert_ne!(one, leaf_hash("abc", b"").unwrap());
}

#[test]
fn roots_of_different_kinds_differ() {
    let tree = Tree::build(&leaves(3)).unwrap();
    assert_ne!(tree.root(EXECUTION_ROOT), tree.root(BUNDLE_ROOT));
}
