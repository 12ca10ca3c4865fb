//! Generates the code for the part of Envoy's external authorization that the server uses.

use std::{error::Error, path::Path};

/// Compiles `third_party/envoy` to `envoy.rs` in the output folder.
pub fn generate() -> Result<(), Box<dyn Error>> {
    let source = Path::new("envoy/service/auth/v3/external_auth.proto");
    let files = protox::compile([source], ["third_party"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .include_file("envoy.rs")
        .compile_fds(files)?;
    Ok(())
}
