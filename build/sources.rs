//! Compiles the proto files, without protoc.

use std::{fs, path::Path};

/// Compiles the files in `proto/tenantry/v1` below `root`, with their comments. Their imports are
/// in `proto/` and `third_party/`.
pub fn compile(root: &Path) -> Result<protox::Compiler, String> {
    let (proto, third_party) = (root.join("proto"), root.join("third_party"));
    let entries = fs::read_dir(proto.join("tenantry/v1")).and_then(Iterator::collect);
    let entries: Vec<fs::DirEntry> = entries.map_err(|error| error.to_string())?;
    let mut sources: Vec<_> = entries.iter().map(fs::DirEntry::path).collect();
    sources.retain(|path| path.extension() == Some("proto".as_ref()));
    // The order of a directory's entries differs between systems. The output must be the same.
    sources.sort();

    let mut compiler =
        protox::Compiler::new([proto, third_party]).map_err(|error| error.to_string())?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(sources)
        // Only the `Debug` form of the error has the position in the file.
        .map_err(|error| format!("{error:?}"))?;
    Ok(compiler)
}
