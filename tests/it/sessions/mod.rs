mod cache;
mod effects;
mod ends;
mod revoke;
