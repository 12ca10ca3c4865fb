//! Power over others: what a subject must hold to give, take or use what another holds.
//!
//! [`rule`] is the rule, without any I/O. [`store`] reads what it is asked about, in the
//! transaction of the act. [`crate::gate::Acting`] asks it: a handler of a method whose
//! policy has a `power` gets its caller from there alone.

pub mod rule;
pub mod store;
