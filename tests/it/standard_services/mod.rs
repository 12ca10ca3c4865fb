//! The standard gRPC services and the HTTP endpoints.

mod deadline;
mod health;
mod http;
mod reflection;
