//! Writes the reference pages, docs/reference/: the API from the proto's comments,
//! policies and field rules, the settings and the audit events from their tables.
#![expect(clippy::print_stdout, reason = "it tells what it wrote")]

mod api;
mod audit;
#[path = "../../build/checks.rs"]
#[expect(dead_code, reason = "the server needs the conditions, this page what they say")]
mod checks;
mod comments;
#[path = "../../build/names.rs"]
#[expect(dead_code, reason = "the server's build needs more of it")]
mod names;
#[path = "../../build/rules.rs"]
#[expect(dead_code, reason = "the server's build needs more of it")]
mod rules;
mod settings;
#[path = "../../build/sources.rs"]
mod sources;

use std::{
    fs,
    path::{Path, PathBuf},
};

fn main() -> anyhow::Result<()> {
    for (path, text) in pages()? {
        fs::write(&path, text)?;
        println!("{}", path.display());
    }
    Ok(())
}

/// The pages, and where they belong.
fn pages() -> anyhow::Result<[(PathBuf, String); 3]> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = root.join("docs/reference");
    Ok([
        (folder.join("api.md"), api::page(&root)?),
        (folder.join("audit.md"), audit::page()),
        (folder.join("settings.md"), settings::page()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_are_current() {
        for (path, text) in pages().expect("pages") {
            let written = fs::read_to_string(&path).unwrap_or_default();
            assert!(written == text, "{} is old: make reference", path.display());
        }
    }
}
