//! The gRPC service `AuthService`. Its operations are in [`crate::sign_in`] and
//! [`crate::account`].

mod rpc;

use crate::{account::Accounts, sign_in::SignIns};

/// The implementation of `AuthService`.
pub struct Auth {
    /// Signs subjects in and out, and refreshes and introspects their tokens.
    pub sign_ins: SignIns,
    /// Registers users, changes and resets their passwords, and verifies and changes their emails.
    pub accounts: Accounts,
}
