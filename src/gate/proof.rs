//! Functions with which a handler gets the proof of admission from its request.

use tonic::Request;

use super::{Admission, Caller, SelfOrPermitted, Visitor, WriteCaller};
use crate::error::{Error, Result};

/// The visitor of a public method's call.
///
/// # Errors
/// Returns INTERNAL when the method is not public.
pub fn visitor<T>(request: &Request<T>) -> Result<Visitor> {
    proof_of(request)
}

/// The caller of a method that requires a token. The method only reads, or it requires no
/// permission.
///
/// # Errors
/// Returns INTERNAL when the method is public, when the method admits callers for their own data,
/// or when the method requires a permission to change something.
pub fn caller<T>(request: &Request<T>) -> Result<Caller> {
    proof_of(request)
}

/// The caller of a read-only method that admits callers for their own data.
///
/// # Errors
/// Returns INTERNAL when the method is of another kind.
pub fn self_or_permitted<T>(request: &Request<T>) -> Result<SelfOrPermitted> {
    proof_of(request)
}

/// The caller of a method that requires a permission to change something.
///
/// # Errors
/// Returns INTERNAL when the method is of another kind.
pub fn write_caller<T>(request: &Request<T>) -> Result<WriteCaller> {
    proof_of(request)
}

/// The admission of a call that stays open (a stream).
///
/// # Errors
/// Returns INTERNAL when the method is not a stream, or is public.
pub fn admission<T>(request: &Request<T>) -> Result<Admission> {
    proof_of(request)
}

fn proof_of<P: Clone + Send + Sync + 'static, T>(request: &Request<T>) -> Result<P> {
    request.extensions().get::<P>().cloned().ok_or_else(|| {
        Error::defect("the handler asks for a proof that does not fit the policy of its method")
    })
}
