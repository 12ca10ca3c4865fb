//! AuthService: the gRPC face of signing in and of accounts. The operations are in
//! [`crate::sign_in`] and [`crate::account`].

mod rpc;

use crate::{account::Accounts, sign_in::SignIns};

/// Serves AuthService.
pub struct Auth {
    /// Signs subjects in and out, and answers for their tokens.
    pub sign_ins: SignIns,
    /// Registration, and changes of passwords.
    pub accounts: Accounts,
}
