//! Power over others: the permissions that a caller must hold to give, take or use the permissions
//! of another subject.
//!
//! [`rule`] is the rule, without any I/O. [`store`] reads the input of the rule in the transaction
//! of the operation. [`crate::gate::WriteCaller`] applies the rule: a handler of a method whose policy
//! has a `power` gets its caller only from a `WriteCaller`.

pub mod rule;
pub mod store;
