mod cache;
mod effects;
mod revoke;
