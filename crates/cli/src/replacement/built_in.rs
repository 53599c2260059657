//! The corpus that comes with the program: the files of `config/conformance`, each a fixture.

macro_rules! corpus {
    ($($name:literal),* $(,)?) => {
        /// Name and text of each fixture, in the order of names.
        pub(super) const BUILT_IN: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../../config/conformance/", $name, ".json")))),*];
    };
}

corpus![
    "arguments",
    "arguments-many",
    "child-left",
    "environment",
    "environment-path",
    "environment-values",
    "exit-0",
    "exit-137",
    "exit-255",
    "exit-3",
    "folder-made",
    "input-executable",
    "input-folder",
    "input-plain",
    "input-text",
    "output-file",
    "output-folder",
    "output-large",
    "output-late",
    "output-link",
    "output-missing",
    "output-names",
    "output-of-failure",
    "output-pipe",
    "output-unicode",
    "processes",
    "random",
    "signal-caught",
    "signal-kill",
    "signal-term",
    "stdin-absent",
    "stdin-text",
    "stdin-unread",
    "stream-binary",
    "stream-exact",
    "stream-large",
    "stream-truncated",
    "stream-unfinished",
    "timeout",
    "timeout-deaf",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_committed_fixture_is_in_it() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/conformance");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<String> =
            files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        names.sort();
        assert_eq!(BUILT_IN.iter().map(|(name, _)| *name).collect::<Vec<_>>(), names);
    }
}
