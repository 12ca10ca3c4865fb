mod create;
mod delete;
mod list;
mod purge;
mod read;
mod state;
mod update;

/// The tenant in a request for the caller's own tenant: empty.
const OWN_TENANT: &str = "";
