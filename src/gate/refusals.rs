//! Errors that several files of the gate return.

use crate::{error::Error, proto::v1::ErrorReason};

pub(super) fn method_unknown() -> Error {
    Error::refused(ErrorReason::MethodUnknown, "no such method")
}

pub(super) fn tenant_mismatch() -> Error {
    let text = "the tenant metadata is not the token's tenant";
    Error::refused(ErrorReason::TenantMismatch, text)
}

pub(super) fn permission_missing(permissions: &[String]) -> Error {
    let text = format!("the caller must hold {}", permissions.join(", "));
    Error::refused(ErrorReason::PermissionMissing, text)
}
