//! Pages about the program whose commands are run on a desk.

#[path = "page.rs"]
pub(crate) mod page;

use std::path::Path;

use super::common::{Desk, repository};
use page::{Followed, Place};

/// Does what a page says, with the signers and engines of this repository in `$SIGNERS` and `$ENGINES`.
pub(crate) fn follow(desk: &Desk, page: &str) -> Followed {
    let program = Path::new(env!("CARGO_BIN_EXE_requiem")).parent().unwrap().to_owned();
    let folder = |name: &str| repository(name).canonicalize().unwrap();
    let variables = vec![
        ("XDG_DATA_HOME", desk.path("data")),
        ("XDG_CONFIG_HOME", desk.path("config")),
        ("SIGNERS", folder("config/signers")),
        ("ENGINES", folder("config/engines")),
    ];
    Place { folder: desk.path("."), programs: vec![program], variables }.follow(&repository(page))
}
