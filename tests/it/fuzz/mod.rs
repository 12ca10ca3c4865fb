//! Nearly valid input gets a documented response. The inputs are texts that the server parses, and
//! whole messages of every RPC.

mod callers;
mod calls;
mod inputs;
mod known_values;
mod messages;
mod targets;
