//! Prevents privilege escalation. A caller gives rights, takes rights, or gets a way to sign in as
//! another subject, only if the caller holds at least the level and the permissions of these rights
//! or of this subject. To give rights or to get a way to sign in, the caller must also hold the
//! level and the permissions for at least as long.
//!
//! [`rule`] is the rule, without any I/O. [`store`] reads the input of the rule in the transaction
//! of the operation. [`crate::gate::WriteCaller`] applies the rule: a handler of a method that
//! requires a permission and writes (its policy sets `power`) gets its caller only from a
//! `WriteCaller`.

pub mod rule;
pub mod store;
