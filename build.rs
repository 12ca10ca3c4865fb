//! Generates the gRPC code, the descriptors and the validators of field rules from `proto/`,
//! without protoc. Also generates the list of common passwords, and the version with its commit.

#[path = "build/checks.rs"]
mod checks;
#[path = "build/commit.rs"]
mod commit;
#[path = "build/emit.rs"]
mod emit;
#[path = "build/envoy.rs"]
mod envoy;
#[path = "build/names.rs"]
mod names;
#[path = "build/passwords.rs"]
mod passwords;
#[path = "build/redact.rs"]
mod redact;
#[path = "build/rules.rs"]
mod rules;
#[path = "build/sources.rs"]
mod sources;

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use prost_reflect::DescriptorPool;

fn main() -> ExitCode {
    match generate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={}", error.to_string().replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn generate() -> Result<(), Box<dyn Error>> {
    for input in ["build.rs", "build", "migrations", "proto", "third_party"] {
        println!("cargo::rerun-if-changed={input}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut compiler = sources::compile(Path::new("."))?;

    // Protox encodes the descriptors, because prost's types drop custom options. The descriptors in
    // the server have no comments, to keep the server small.
    let mut files = compiler.file_descriptor_set();
    let descriptors = compiler.include_source_info(false).encode_file_descriptor_set();
    let pool = DescriptorPool::decode(descriptors.as_slice())?;

    // Only options use the types of the package `buf.validate`, so the server's code does not need
    // them.
    files.file.retain(|file| file.package() != "buf.validate");
    let redacted = redact::redacted_messages(&pool);
    tonic_prost_build::configure()
        .codec_path("crate::proto::codec::ValidatedCodec")
        .skip_debug(redacted.iter().map(|message| format!(".{}", message.full_name())))
        .compile_fds(files)?;

    envoy::generate()?;

    fs::write(out.join("descriptors.bin"), descriptors)?;
    fs::write(out.join("debug.rs"), redact::debug_impls(&pool))?;
    fs::write(out.join("validate.rs"), emit::validators(&pool)?)?;
    fs::write(out.join("common-passwords.fst"), passwords::common_passwords()?)?;

    println!("cargo::rustc-env=TENANTRY_VERSION={}", commit::version()?);
    Ok(())
}
