//! Isolation of tenants over gRPC.

mod isolation;
mod lists;
mod metadata;
mod platform;
mod suspension;
