//! The gRPC types and services that `build.rs` generates from `proto/`.

pub mod codec;
pub mod json;
pub mod validate;

/// The messages, clients and servers of the API.
#[expect(clippy::all, clippy::pedantic, clippy::allow_attributes, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("tenantry.v1");
}

/// The validators that are generated from the field rules in the proto files.
#[expect(clippy::all, unused_variables, reason = "generated")]
mod rules {
    use crate::proto::{
        v1,
        validate::{self, Path, Validate, Violations},
    };

    include!(concat!(env!("OUT_DIR"), "/validate.rs"));
}

/// `Debug` implementations of messages with secret fields, which the proto marks with
/// `debug_redact`.
mod redacted {
    use crate::proto::v1;

    include!(concat!(env!("OUT_DIR"), "/debug.rs"));
}

/// The encoded `FileDescriptorSet` of the API, with its imports and custom options. Used for
/// reflection and to read the method policies.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
