//! Tenants are kept apart, over gRPC.

mod isolation;
mod lists;
mod metadata;
mod platform;
mod suspension;
