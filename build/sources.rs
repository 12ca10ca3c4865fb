//! Compiles the proto files, which needs no protoc.

use std::{fs, path::Path};

/// The files of our package, with their comments and all that they import, compiled from
/// `proto/` and `third_party/` in this folder.
pub fn compile(root: &Path) -> Result<protox::Compiler, String> {
    let (proto, third_party) = (root.join("proto"), root.join("third_party"));
    let entries = fs::read_dir(proto.join("tenantry/v1")).and_then(Iterator::collect);
    let entries: Vec<fs::DirEntry> = entries.map_err(|error| error.to_string())?;
    let mut sources: Vec<_> = entries.iter().map(fs::DirEntry::path).collect();
    sources.retain(|path| path.extension() == Some("proto".as_ref()));
    // The directory's order is not the same everywhere; the output's is.
    sources.sort();

    let mut compiler =
        protox::Compiler::new([proto, third_party]).map_err(|error| error.to_string())?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(sources)
        // Only its Debug form says where the error is.
        .map_err(|error| format!("{error:?}"))?;
    Ok(compiler)
}
