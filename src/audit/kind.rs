//! The kinds of audit events, and the content of each kind.

/// A key of an event's `detail`, and the meaning of its value.
pub type Detail = (&'static str, &'static str);

/// Declares the kinds. Each kind has a name, a meaning, the meaning of `target_id` (empty if events
/// of the kind have no target), and the keys of `detail` with the meanings of their values.
macro_rules! kinds {
    ($($kind:ident $name:literal $about:literal $target:literal [$($key:literal $value:literal),*])*) => {
        /// The kind of an event. Its name in the trail is in the past tense and in
        /// `snake_case`.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum EventKind {
            $(#[doc = $about] $kind,)*
        }

        impl EventKind {
            /// All kinds, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The kind's name in the trail.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// The meaning of the kind.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self { $(Self::$kind => $about,)* }
            }

            /// The meaning of the target; empty when events of the kind have none.
            #[must_use]
            pub const fn target(self) -> &'static str {
                match self { $(Self::$kind => $target,)* }
            }

            /// The keys that `detail` may have.
            #[must_use]
            pub const fn detail(self) -> &'static [Detail] {
                match self { $(Self::$kind => &[$(($key, $value)),*],)* }
            }
        }
    };
}

kinds! {
    SignedIn "signed_in" "A session was opened, or an API key exchanged for an access token."
        "the user or service account" ["by" "`api_key` for a service account"]
    SignedOut "signed_out" "A caller ended one of its own sessions."
        "the session" []
    SignInFailed "sign_in_failed" "A sign-in was refused."
        "the user, if there is one" ["by" "`api_key` for a service account"]
    RefreshReuse "refresh_reuse" "A used refresh token was presented again, and its session was revoked."
        "the user" []
    RefreshRefused "refresh_refused" "A refresh token of an ended session was refused."
        "the user" []
    PasswordChanged "password_changed" "A user changed the password, and the user's other sessions ended."
        "the user" ["sessions_revoked" "number of live sessions that ended"]
    PasswordChangeFailed "password_change_failed" "A change of the password was refused."
        "the user" []
    PasswordResetRequested "password_reset_requested" "A password reset mail was requested."
        "the user, if there is one" []
    PasswordReset "password_reset" "The password was reset, by a mailed token or by the command."
        "the user" ["sessions_revoked" "number of live sessions that ended", "email_verified" "`true` if the email was not verified before", "by" "`command` if the command did it"]
    PasswordResetFailed "password_reset_failed" "A password reset was refused."
        "the user of the token" []
    EmailVerificationRequested "email_verification_requested" "A mail that verifies an email was requested."
        "the user, if there is one" []
    EmailVerified "email_verified" "A user verified its email with a mailed token."
        "the user" []
    EmailVerificationFailed "email_verification_failed" "A mailed token that verifies an email was refused."
        "the user of the token" ["reason" "the error's reason, if the token itself was valid"]
    EmailChangeRequested "email_change_requested" "A user asked to change its own email, with a mail to the new email."
        "the user" []
    SessionRevoked "session_revoked" "A live session was ended by `RevokeSession`."
        "the session" ["user_id" "the user of the session"]
    SessionsRevoked "sessions_revoked" "A user's live sessions were ended by `RevokeAllSessions`."
        "the user" ["count" "number of sessions"]
    RegistrationRequested "registration_requested" "Somebody registered in the tenant. The user is created when the token in the mail is used. No token is sent to an email that a user of the tenant already has."
        "" []
    UserRegistered "user_registered" "A user registered."
        "the user" ["email_verified" "`true` if the user has proved the email with a mailed token", "role_id" "the role that the user got", "role_name" "its name", "assignment_id" "the assignment"]
    UserCreated "user_created" "A user was created."
        "the user" ["fields" "names of the fields that were set", "email_verified" "whether the email is marked as verified", "role_id" "for the first administrator: the role", "role_name" "its name", "assignment_id" "the assignment", "by" "`command` if a command did it"]
    UserUpdated "user_updated" "A user was changed."
        "the user" ["fields" "names of the fields that changed", "email_verified" "`from`, `to`", "by" "`mailed_token` if a user completed the change of its own email with a mailed token"]
    EmailChangeFailed "email_change_failed" "A user tried to change its own email with a wrong password."
        "the user" []
    UserDisabled "user_disabled" "A user was disabled, and the user's sessions ended."
        "the user" ["sessions_revoked" "number of live sessions that ended"]
    UserEnabled "user_enabled" "A user was enabled."
        "the user" ["by" "`command` if a command did it"]
    UserDeleted "user_deleted" "A user was deleted."
        "the user" ["sessions_revoked" "number of live sessions that ended", "assignments" "the role assignments of the user: `assignment_id`, `role_id`, `role_name`, `scope`, `expire_time`"]
    RegistrationRefused "registration_refused" "A registration was refused."
        "" ["reason" "the error's reason"]
    ServiceAccountCreated "service_account_created" "A service account was created."
        "the service account" ["name" "its name"]
    ServiceAccountDeleted "service_account_deleted" "A service account was deleted."
        "the service account" ["name" "its name", "api_keys" "ids of its valid keys, which became invalid", "assignments" "the role assignments of the account: `assignment_id`, `role_id`, `role_name`, `scope`, `expire_time`"]
    ApiKeyCreated "api_key_created" "An API key was created."
        "the service account" ["api_key_id" "the key", "credential" "`secret`, `public_key` or `certificate`", "expire_time" "when the key expires", "name" "its name", "secret_replaced" "`true` if the request was repeated and the key got a new secret"]
    ApiKeyRevoked "api_key_revoked" "A valid API key was revoked."
        "the service account" ["api_key_id" "the key"]
    RoleCreated "role_created" "A role was created."
        "the role" ["name" "its name", "level" "its RoleLevel", "system" "whether it is a system role", "permissions" "its permissions"]
    RoleUpdated "role_updated" "A role was changed."
        "the role" ["role_name" "its name after the change", "name" "`from`, `to`", "level" "`from`, `to`", "permissions_added" "permissions that were added to the role", "permissions_removed" "permissions that were removed from the role"]
    RoleDeleted "role_deleted" "A role was deleted."
        "the role" ["name" "its name", "level" "its RoleLevel", "system" "whether it was a system role", "permissions" "its permissions"]
    RoleAssigned "role_assigned" "A role was assigned."
        "the user or service account" ["role_id" "the role", "role_name" "its name", "assignment_id" "the assignment", "scope" "where the assignment applies; absent: everywhere", "expire_time" "when the assignment expires; absent: never"]
    RoleUnassigned "role_unassigned" "Assignments of a role were removed."
        "the user or service account" ["role_id" "the role", "role_name" "its name", "assignments" "each removed assignment: `assignment_id`, `scope`, `expire_time`"]
    TenantCreated "tenant_created" "The tenant was created."
        "the tenant" ["name" "its name", "slug" "its slug", "settings" "for the settings that the service uses: `from`, `to`", "settings_changed" "names of all settings", "by" "`command` if a command did it"]
    TenantUpdated "tenant_updated" "The tenant was changed."
        "the tenant" ["name" "`from`, `to`", "slug" "`from`, `to`", "settings" "for the settings that the service uses: `from`, `to`", "settings_changed" "names of all settings that changed"]
    TenantSuspended "tenant_suspended" "The tenant was suspended."
        "the tenant" []
    TenantReactivated "tenant_reactivated" "The tenant was reactivated."
        "the tenant" []
    TenantDeleted "tenant_deleted" "The tenant was deleted. The event is in the trail of the tenant and in the trail of the platform."
        "the tenant" ["name" "its name", "slug" "its slug"]
    ActedAcrossTenants "acted_across_tenants" "The platform's staff called a method in this tenant."
        "" ["method" "the RPC's path"]
    CallRefused "call_refused" "A call of a caller with a valid token was refused."
        "" ["method" "the RPC's path", "reason" "the error's reason"]
    RefusalsCounted "refusals_counted" "More calls of the caller were refused in a minute than are recorded as single events. This event has the number of the further refusals."
        "the caller" ["count" "number of refusals in a minute"]
    CallLimited "call_limited" "A rate limit refused calls. The event has the number of these calls in one minute on one replica."
        "the tenant" ["class" "the limit: `sign_in`, `registration`, `refresh`, `introspection`, `password_reset`, `api_key`, or `guess` for wrong passwords", "by" "the limit applies to one `network`, `tenant` or `account`", "count" "number of calls"]
    DataKeysRewrapped "data_keys_rewrapped" "Data keys of tenants were wrapped by another master key. The event is in the trail of the platform."
        "" ["master_key" "the id of the master key", "count" "number of data keys"]
    DeploymentRestored "deployment_restored" "The database was restored to an earlier time, and `tenantry restored` ended the tenant's sessions."
        "" ["sessions_revoked" "number of live sessions that ended", "api_keys_revoked" "number of valid API keys that were revoked", "tenants" "in the platform's trail: number of tenants"]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_have_only_lower_case_letters_and_underscores() {
        let names: HashSet<_> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(names.len(), EventKind::ALL.len());
        let is_word =
            |name: &str| name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase());
        assert!(names.into_iter().all(is_word));
    }
}
