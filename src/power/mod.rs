//! Power over others: what a caller must hold to give, take or use what another subject holds.
//!
//! [`rule`] is the rule, without any I/O. [`store`] reads its input in the transaction of the
//! operation. [`crate::gate::WriteCaller`] applies the rule: a handler of a method whose policy has a
//! `power` gets its caller only from there.

pub mod rule;
pub mod store;
