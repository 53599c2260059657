//! Pages whose commands are run, in order, in one folder. A `sh` block is a script that must succeed; the `text` block after it
//! shows lines that its output must have, `…` standing for anything.

#![allow(
    clippy::unwrap_used,
    reason = "a page that cannot be followed fails the test, whichever suite follows it"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a page is followed.
pub(crate) struct Place {
    /// The folder.
    pub(crate) folder: PathBuf,
    /// Folders of programs, before those of the PATH.
    pub(crate) programs: Vec<PathBuf>,
    /// Variables.
    pub(crate) variables: Vec<(&'static str, PathBuf)>,
}

/// What was run and compared.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    pub(crate) scripts: usize,
    pub(crate) lines: usize,
}

/// One fenced block.
struct Block {
    language: String,
    content: String,
}

/// The fenced blocks of a page.
fn blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let content: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            found.push(Block { language: language.to_owned(), content: content.join("\n") });
        }
    }
    found
}

/// Whether a line is what a pattern shows.
pub(crate) fn is_like(line: &str, pattern: &str) -> bool {
    let mut rest = line.trim_end();
    for (index, part) in pattern.trim_end().split('…').enumerate() {
        match rest.find(part) {
            Some(at) if index > 0 || at == 0 => rest = &rest[at + part.len()..],
            _ => return false,
        }
    }
    pattern.trim_end().ends_with('…') || rest.is_empty()
}

impl Place {
    /// Does what the page says.
    pub(crate) fn follow(&self, page: &Path) -> Followed {
        self.follow_text(&std::fs::read_to_string(page).unwrap())
    }

    /// Does what the section of the page below this heading says, up to the next heading.
    #[allow(dead_code, reason = "not every suite reads its pages in parts")]
    pub(crate) fn follow_section(&self, page: &Path, heading: &str) -> Followed {
        let page = std::fs::read_to_string(page).unwrap();
        let mut lines = page.lines();
        assert!(lines.any(|line| line == heading), "there is no {heading:?}");
        let mut fenced = false;
        let section = lines.take_while(|line| {
            fenced ^= line.starts_with("```");
            fenced || !line.starts_with('#')
        });
        self.follow_text(&section.collect::<Vec<_>>().join("\n"))
    }

    fn follow_text(&self, page: &str) -> Followed {
        let (mut said, mut followed) = (String::new(), Followed::default());
        for block in blocks(page) {
            match block.language.as_str() {
                "sh" => {
                    said = self.run(&block.content);
                    followed.scripts += 1;
                }
                "text" => {
                    let patterns = block.content.lines().filter(|line| !matches!(line.trim(), "" | "…"));
                    for pattern in patterns {
                        let shown = said.lines().any(|line| is_like(line, pattern));
                        assert!(shown, "no line like {pattern:?} in\n{said}");
                        followed.lines += 1;
                    }
                }
                _ => {}
            }
        }
        followed
    }

    fn run(&self, script: &str) -> String {
        let mut shell = Command::new("sh");
        shell.args(["-euc", script]).current_dir(&self.folder);
        let ours = self.programs.iter().map(|folder| folder.display().to_string());
        let path: Vec<String> = ours.chain([std::env::var("PATH").unwrap()]).collect();
        shell.env("PATH", path.join(":")).envs(self.variables.iter().map(|(name, value)| (name, value)));
        let output = shell.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}\n{said}\n{complaint}");
        said
    }
}
