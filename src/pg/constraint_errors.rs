//! Maps the names of the schema's constraints to client errors. `error.rs` maps their reasons to gRPC
//! codes.
//!
//! A constraint detects a conflict during the write. No query checks before the write, because two
//! concurrent requests could both pass such a check.

use crate::{error::Error, proto::v1::ErrorReason};

impl From<sqlx::Error> for Error {
    /// The violation of a constraint becomes the client error for the name of the constraint.
    /// Every other error stays a database error.
    fn from(error: sqlx::Error) -> Self {
        let constraint = error.as_database_error().and_then(|e| e.constraint());
        match constraint.and_then(refusal) {
            Some(refusal) => refusal,
            None => Self::Database(error),
        }
    }
}

/// The client error for a violated constraint; `None` when no request can violate it.
fn refusal(constraint: &str) -> Option<Error> {
    // The indexes `…_name_key_idx` refuse a name whose normalized form (`api/names.rs`) exists.
    let (reason, message) = match constraint {
        "users_email_key" => (ErrorReason::EmailTaken, "the tenant has a user with this email"),
        // The check reserves the slug `platform`.
        "tenants_slug_key" | "tenants_platform_slug_check" => {
            (ErrorReason::SlugTaken, "a tenant has this slug")
        }
        "tenants_slug_check" => return Some(Error::field("slug", "must not look like a UUID")),
        "roles_name_key" | "roles_name_key_idx" => {
            (ErrorReason::RoleNameTaken, "the tenant has a role with this name")
        }
        "roles_wildcard_check" => {
            return Some(Error::field("permissions", "`*:*` is allowed only for system roles"));
        }
        "role_assignments_key" => {
            (ErrorReason::RoleAlreadyAssigned, "the subject already has this role with this scope")
        }
        "service_accounts_name_key" | "service_accounts_name_key_idx" => (
            ErrorReason::ServiceAccountNameTaken,
            "the tenant has a service account with this name",
        ),
        "api_keys_certificate_key" => (
            ErrorReason::CertificateNameTaken,
            "a service account of the tenant has this certificate name",
        ),
        "role_assignments_role_fkey" => (ErrorReason::RoleInUse, "the role is still assigned"),
        // Another transaction deleted the referenced row while the request ran.
        "role_assignments_subject_fkey"
        | "sessions_user_fkey"
        | "credentials_user_fkey"
        | "users_tenant_fkey"
        | "registrations_tenant_fkey"
        | "roles_tenant_fkey"
        | "service_accounts_tenant_fkey"
        | "api_keys_account_fkey" => return Some(Error::not_found()),
        _ => return None,
    };
    Some(Error::refused(reason, message))
}
