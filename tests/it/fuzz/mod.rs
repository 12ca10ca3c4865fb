//! Input from outside gets a precise answer and does no harm. The inputs are texts that the
//! server parses, and whole messages of every RPC.

mod calls;
mod inputs;
mod known;
mod messages;
mod targets;
