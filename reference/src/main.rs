//! Generates the pages in docs/reference/: the API from the comments, policies and field rules in
//! the proto files, the settings and the audit events from their tables in the code.
#![expect(clippy::print_stdout, reason = "prints the paths of the written files")]

mod api;
mod audit;
#[path = "../../build/checks.rs"]
#[expect(dead_code, reason = "the pages contain only the descriptions of the checks")]
mod checks;
mod comments;
#[path = "../../build/names.rs"]
#[expect(dead_code, reason = "only the server's build uses the rest of this file")]
mod names;
#[path = "../../build/rules.rs"]
#[expect(dead_code, reason = "only the server's build uses the rest of this file")]
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

/// The pages and their paths.
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
        for (path, text) in pages().expect("the pages are generated") {
            let on_disk = fs::read_to_string(&path).unwrap_or_default();
            assert!(on_disk == text, "{} is outdated: run make reference", path.display());
        }
    }
}
