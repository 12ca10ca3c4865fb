//! Generates the gRPC code from `proto/`, without protoc.

#[path = "../../build/names.rs"]
mod names;
#[path = "../../build/redact.rs"]
mod redact;
#[path = "../../build/sources.rs"]
mod sources;

use std::{env, error::Error, fs, path::PathBuf};

use prost_reflect::DescriptorPool;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../..");
    for input in ["proto", "third_party", "build"] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    let compiler = sources::compile(&root)?;
    let mut files = compiler.file_descriptor_set();
    let pool = DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice())?;
    // The types of buf.validate are used only in options, so no code is needed for them.
    files.file.retain(|file| file.package() != "buf.validate");
    let redacted = redact::redacted_messages(&pool);
    tonic_prost_build::configure()
        .build_server(false)
        .skip_debug(redacted.iter().map(|message| format!(".{}", message.full_name())))
        .compile_fds(files)?;
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("debug.rs"), redact::debug_impls(&pool))?;
    Ok(())
}
