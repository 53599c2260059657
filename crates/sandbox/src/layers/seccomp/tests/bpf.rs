//! A machine for the part of classic BPF that filters use, as the kernel's documentation describes it.

use seccompiler::sock_filter;

/// `struct seccomp_data` without the instruction pointer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) nr: u32,
    pub(super) arch: u32,
    pub(super) args: [u64; 6],
}

/// How a run ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) verdict: u32,
    pub(super) steps: usize,
}

impl Call {
    /// The structure's bytes.
    fn bytes(&self) -> [u8; 64] {
        let mut bytes = [0xaa; 64];
        bytes[..4].copy_from_slice(&self.nr.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.arch.to_le_bytes());
        for (index, arg) in self.args.iter().enumerate() {
            bytes[16 + 8 * index..24 + 8 * index].copy_from_slice(&arg.to_le_bytes());
        }
        bytes
    }
}

/// Runs `program`; panics on what the kernel's checker would refuse.
pub(super) fn run(program: &[sock_filter], call: &Call) -> Run {
    let data = call.bytes();
    let (mut accumulator, mut at, mut steps) = (0_u32, 0_usize, 0_usize);
    loop {
        let one = &program[at];
        at += 1;
        steps += 1;
        let branch = |taken: bool| usize::from(if taken { one.jt } else { one.jf });
        match one.code {
            // ld [k]
            0x20 => {
                let offset = usize::try_from(one.k).unwrap();
                assert!(offset % 4 == 0, "unaligned load");
                accumulator = u32::from_le_bytes(data[offset..offset + 4].try_into().unwrap());
            }
            // and #k
            0x54 => accumulator &= one.k,
            // ja
            0x05 => at += usize::try_from(one.k).unwrap(),
            // jeq, jgt, jge, jset
            0x15 => at += branch(accumulator == one.k),
            0x25 => at += branch(accumulator > one.k),
            0x35 => at += branch(accumulator >= one.k),
            0x45 => at += branch(accumulator & one.k != 0),
            // ret #k
            0x06 => return Run { verdict: one.k, steps },
            other => panic!("instruction {other:#x}"),
        }
    }
}
