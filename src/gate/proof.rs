//! The proof of admission, as a handler takes it from its request.

use tonic::Request;

use super::{Acting, Admission, Caller, Reaching, Visitor};
use crate::error::{Error, Result};

/// The visitor of a public method.
///
/// # Errors
/// INTERNAL when the method is not public.
pub fn visitor<T>(request: &Request<T>) -> Result<Visitor> {
    passed(request)
}

/// The caller of a method with a token that only reads, or asks for no permission.
///
/// # Errors
/// INTERNAL when the method is public, admits callers for their own, or asks for a permission
/// to change something.
pub fn caller<T>(request: &Request<T>) -> Result<Caller> {
    passed(request)
}

/// The caller of a method that only reads, and admits callers for their own.
///
/// # Errors
/// INTERNAL when the method is another.
pub fn reaching<T>(request: &Request<T>) -> Result<Reaching> {
    passed(request)
}

/// The caller of a method that asks for a permission to change something.
///
/// # Errors
/// INTERNAL when the method is another.
pub fn acting<T>(request: &Request<T>) -> Result<Acting> {
    passed(request)
}

/// The admission of a call that stays open.
///
/// # Errors
/// INTERNAL when the method answers once, or is public.
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
