//! Makes the gRPC code from `proto/`, which needs no protoc.

#[path = "../../build/names.rs"]
mod names;
#[path = "../../build/redact.rs"]
mod redact;

use std::{env, error::Error, fs, path::PathBuf};

use prost_reflect::DescriptorPool;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../..");
    let (proto, third_party) = (root.join("proto"), root.join("third_party"));
    for input in [&proto, &third_party, &root.join("build")] {
        println!("cargo::rerun-if-changed={}", input.display());
    }
    let mut sources = fs::read_dir(proto.join("tenantry/v1"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    // The directory's order is not the same everywhere; the output's is.
    sources.sort();

    let mut compiler = protox::Compiler::new([proto, third_party])?;
    compiler.include_imports(true).include_source_info(true).open_files(sources)?;
    let mut files = compiler.file_descriptor_set();
    let pool = DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice())?;
    // Its types are options only.
    files.file.retain(|file| file.package() != "buf.validate");
    let redacted = redact::messages(&pool);
    tonic_prost_build::configure()
        .build_server(false)
        .skip_debug(redacted.iter().map(|message| format!(".{}", message.full_name())))
        .compile_fds(files)?;
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("debug.rs"), redact::debugs(&pool))?;
    Ok(())
}
