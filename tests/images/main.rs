//! What images hold. Shown on the smallest program of them, which is built like the others: `cargo xtask images --twice` does it
//! with all of them, which takes minutes.

use std::path::Path;

use requiem_tests::Failure;
use requiem_xtask::cargo::{self, Profile};
use requiem_xtask::oci::{File, Image};
use requiem_xtask::scratch::Scratch;
use requiem_xtask::{images, paths};

const PROGRAM: &str = "requiem-runner";

fn image(program: &Path) -> Result<Image, Failure> {
    Ok(Image {
        name: "requiem.dev/runner:1".to_owned(),
        files: vec![File::program(format!("usr/bin/{PROGRAM}"), std::fs::read(program)?)],
        entrypoint: vec![format!("/usr/bin/{PROGRAM}")],
        user: "65532:65532".to_owned(),
        labels: Vec::new(),
    })
}

/// Whether an ELF file for 64 bits names a dynamic linker: a program header of type 3 (PT_INTERP).
fn wants_a_linker(elf: &[u8]) -> bool {
    assert_eq!(elf.get(..5), Some(&b"\x7fELF\x02"[..]), "not an ELF file for 64 bits");
    let word = |at: usize| u16::from_le_bytes([elf[at], elf[at + 1]]) as usize;
    let table = u64::from_le_bytes(elf[32..40].try_into().unwrap_or_default());
    let (table, size, count) = (usize::try_from(table).unwrap_or(usize::MAX), word(54), word(56));
    (0..count).any(|index| elf[table + index * size..][..4] == 3_u32.to_le_bytes())
}

#[test]
fn a_program_is_the_same_wherever_it_is_built_and_needs_and_tells_nothing() -> Result<(), Failure> {
    let first = cargo::build_static(&paths::repository(), &cargo::target()?, Profile::Image, &[PROGRAM])?
        .join(PROGRAM);
    let scratch = Scratch::new("images-test")?;
    let (_, programs) = images::build_elsewhere(scratch.path(), Profile::Image, &[PROGRAM])?;
    let second = programs.join(PROGRAM);
    let bytes = std::fs::read(&first)?;
    assert!(bytes == std::fs::read(&second)?, "{} and {} differ", first.display(), second.display());
    assert_eq!(image(&first)?.pack()?.digest(), image(&second)?.pack()?.digest());

    assert!(!wants_a_linker(&bytes), "it is linked dynamically");
    assert!(wants_a_linker(&std::fs::read("/proc/self/exe")?), "this test is, and must be told apart");
    let told = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    for place in [paths::repository(), scratch.path().to_owned(), std::env::home_dir().unwrap_or_default()] {
        let place = format!("{}/", place.display());
        assert!(!told(&place), "it holds the path {place}");
    }
    Ok(())
}
