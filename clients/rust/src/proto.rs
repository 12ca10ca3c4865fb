//! The gRPC types and clients that `build.rs` generates from `proto/`.

/// The messages and clients of the API.
#[expect(clippy::all, clippy::pedantic, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("tenantry.v1");
}

/// `Debug` for messages with fields that the proto marks with `debug_redact`.
mod redacted {
    use crate::proto::v1;

    include!(concat!(env!("OUT_DIR"), "/debug.rs"));
}
