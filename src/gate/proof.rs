//! Handlers take the proof of admission from their request with these functions.

use tonic::Request;

use super::{Admission, Caller, SelfOrPermitted, Visitor, WriteCaller};
use crate::error::{Error, Result};

/// The visitor of a public method's call.
///
/// # Errors
/// INTERNAL when the method is not public.
pub fn visitor<T>(request: &Request<T>) -> Result<Visitor> {
    passed(request)
}

/// The caller of a method with a token that only reads, or that requires no permission.
///
/// # Errors
/// INTERNAL when the method is public, when it admits callers for their own things, or when it
/// requires a permission to change something.
pub fn caller<T>(request: &Request<T>) -> Result<Caller> {
    passed(request)
}

/// The caller of a read-only method that admits callers for their own things.
///
/// # Errors
/// INTERNAL when the method is of another kind.
pub fn reaching<T>(request: &Request<T>) -> Result<SelfOrPermitted> {
    passed(request)
}

/// The caller of a method that requires a permission to change something.
///
/// # Errors
/// INTERNAL when the method is of another kind.
pub fn acting<T>(request: &Request<T>) -> Result<WriteCaller> {
    passed(request)
}

/// The admission of a call that stays open (a stream).
///
/// # Errors
/// INTERNAL when the method is not a stream, or is public.
pub fn admission<T>(request: &Request<T>) -> Result<Admission> {
    passed(request)
}

fn passed<P: Clone + Send + Sync + 'static, T>(request: &Request<T>) -> Result<P> {
    request
        .extensions()
        .get::<P>()
        .cloned()
        .ok_or_else(|| Error::defect("the handler asks for another proof than its policy gives"))
}
