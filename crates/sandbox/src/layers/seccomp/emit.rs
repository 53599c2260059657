//! From rules to classic BPF.
//!
//! ```text
//! architecture is not ours -> kill
//! number is -1             -> unknown          (no ABI, just not a call)
//! number has the x32 bit   -> kill             (x86-64 only)
//! binary search over runs of neighbouring numbers with the same answer
//!   plain leaf:       return the answer
//!   conditional leaf: test arguments, return the answer
//! ```
//!
//! Why a tree: when a filter is installed the kernel runs it once for every call number to learn which are always
//! allowed. A chain of 400 comparisons makes that 400 × 400 / 2 steps, about a millisecond; the tree needs about
//! ten steps per number. After that, calls which are always allowed skip the filter altogether.

use seccompiler::{BpfProgram, sock_filter};

use super::SeccompError;
use super::policy::{Action, Clause, Policy, Rule, Test};

/// Where `struct seccomp_data` has the call's number.
const OFFSET_NR: u32 = 0;
/// Where it has the architecture.
const OFFSET_ARCH: u32 = 4;
/// Where it has the first argument; arguments are 8 bytes each, low half first (both our architectures are
/// little-endian).
const OFFSET_ARGS: u32 = 16;
/// Numbers from here on belong to the x32 ABI.
const X32_BIT: u32 = 0x4000_0000;
/// The kernel accepts no longer program.
const MAX_LEN: usize = 4096;

const LD_ABS: u16 = 0x20;
const AND_K: u16 = 0x54;
const JA: u16 = 0x05;
const JEQ_K: u16 = 0x15;
const JGE_K: u16 = 0x35;
const RET_K: u16 = 0x06;

/// An architecture whose calls a filter judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arch {
    /// AUDIT_ARCH_*.
    pub(super) audit: u32,
    /// Whether numbers with the x32 bit are another ABI.
    pub(super) has_x32: bool,
}

impl Arch {
    pub(super) const X86_64: Self = Self { audit: 0xc000_003e, has_x32: true };
    pub(super) const AARCH64: Self = Self { audit: 0xc000_00b7, has_x32: false };

    /// The one this is compiled for.
    pub(super) const fn current() -> Result<Self, SeccompError> {
        if cfg!(target_arch = "x86_64") {
            Ok(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Ok(Self::AARCH64)
        } else {
            Err(SeccompError::Architecture)
        }
    }
}

/// The whole program.
pub(super) fn compile(policy: &Policy, arch: Arch) -> Result<BpfProgram, SeccompError> {
    let mut program =
        vec![load(OFFSET_ARCH), jump(JEQ_K, arch.audit, 1, 0), ret(Action::Kill), load(OFFSET_NR)];
    if arch.has_x32 {
        // -1 first: it has the x32 bit too, but is what a tracer or a lost number leaves, not another ABI.
        program.extend([jump(JEQ_K, u32::MAX, 0, 1), ret(policy.unknown)]);
        program.extend([jump(JGE_K, X32_BIT, 0, 1), ret(Action::Kill)]);
    }
    program.extend(tree(&runs(policy))?);
    if program.len() > MAX_LEN {
        return Err(SeccompError::TooLong { instructions: program.len() });
    }
    Ok(program)
}

/// Numbers from `start` to the next run's start have one answer.
struct Run<'policy> {
    start: u32,
    leaf: Leaf<'policy>,
}

#[derive(Clone, Copy, PartialEq)]
enum Leaf<'policy> {
    Plain(Action),
    Conditional(&'policy Rule),
}

/// Covers every number from 0 on without gaps.
fn runs(policy: &Policy) -> Vec<Run<'_>> {
    let mut runs = vec![Run { start: 0, leaf: Leaf::Plain(policy.unknown) }];
    let mut next = 0;
    for (&number, rule) in &policy.rules {
        if number > next {
            extend(&mut runs, next, Leaf::Plain(policy.unknown));
        }
        let plain = rule.clauses.is_empty();
        extend(&mut runs, number, if plain { Leaf::Plain(rule.otherwise) } else { Leaf::Conditional(rule) });
        next = number + 1;
    }
    extend(&mut runs, next, Leaf::Plain(policy.unknown));
    runs
}

/// Opens a run unless the last one goes on.
fn extend<'policy>(runs: &mut Vec<Run<'policy>>, start: u32, leaf: Leaf<'policy>) {
    match runs.last_mut() {
        Some(last) if last.start == start => last.leaf = leaf,
        Some(last) if last.leaf == leaf => {}
        _ => runs.push(Run { start, leaf }),
    }
}

/// Binary search; the accumulator holds the number.
fn tree(runs: &[Run<'_>]) -> Result<BpfProgram, SeccompError> {
    if let [run] = runs {
        return run.leaf.emit();
    }
    let (low, high) = runs.split_at(runs.len() / 2);
    let Some(middle) = high.first() else { return Ok(Vec::new()) };
    let low = tree(low)?;
    let mut code = match u8::try_from(low.len()) {
        Ok(distance) => vec![jump(JGE_K, middle.start, distance, 0)],
        // Conditional jumps reach 255 instructions, unconditional ones any distance.
        Err(_) => vec![jump(JGE_K, middle.start, 0, 1), always(low.len())?],
    };
    code.extend(low);
    code.extend(tree(high)?);
    Ok(code)
}

impl Leaf<'_> {
    fn emit(self) -> Result<BpfProgram, SeccompError> {
        match self {
            Self::Plain(action) => Ok(vec![ret(action)]),
            Self::Conditional(rule) => {
                let mut code = Vec::new();
                for clause in &rule.clauses {
                    code.extend(clause.emit()?);
                }
                code.push(ret(rule.otherwise));
                Ok(code)
            }
        }
    }
}

impl Clause {
    /// Returns the action when every test holds, else falls through to what follows.
    fn emit(&self) -> Result<BpfProgram, SeccompError> {
        let mut code = vec![ret(self.action)];
        for test in self.tests.iter().rev() {
            let mut block = test.emit(code.len())?;
            block.extend(code);
            code = block;
        }
        Ok(code)
    }
}

impl Test {
    /// Falls through when it holds, else skips `rest` instructions.
    fn emit(&self, rest: usize) -> Result<BpfProgram, SeccompError> {
        let mut code = vec![load(OFFSET_ARGS + 8 * u32::from(self.arg))];
        if self.mask != u32::MAX {
            code.push(sock_filter { code: AND_K, jt: 0, jf: 0, k: self.mask });
        }
        for (index, value) in self.values.iter().enumerate() {
            let after = self.values.len() - 1 - index;
            let miss = if after == 0 { rest } else { 0 };
            code.push(jump(JEQ_K, *value, near(after)?, near(miss)?));
        }
        Ok(code)
    }
}

fn near(distance: usize) -> Result<u8, SeccompError> {
    u8::try_from(distance).map_err(|_| SeccompError::TooLong { instructions: distance })
}

fn always(distance: usize) -> Result<sock_filter, SeccompError> {
    let k = u32::try_from(distance).map_err(|_| SeccompError::TooLong { instructions: distance })?;
    Ok(sock_filter { code: JA, jt: 0, jf: 0, k })
}

const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

const fn load(offset: u32) -> sock_filter {
    sock_filter { code: LD_ABS, jt: 0, jf: 0, k: offset }
}

const fn ret(action: Action) -> sock_filter {
    sock_filter { code: RET_K, jt: 0, jf: 0, k: action.to_bpf() }
}
