//! What comes from outside is answered precisely and does no harm: text that the server
//! reads, and whole messages of every RPC.

mod calls;
mod inputs;
mod known;
mod messages;
mod targets;
