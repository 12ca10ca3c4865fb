//! The kinds of events, and what an event of each kind contains.

/// A key of an event's `detail`, and what its value is.
pub type Detail = (&'static str, &'static str);

/// Declares the kinds. Each has its name in the trail, its meaning, what `target_id` is
/// (empty: there is none), and the keys of `detail`.
macro_rules! kinds {
    ($($kind:ident $name:literal $about:literal $target:literal [$($key:literal $value:literal),*])*) => {
        /// What happened: a past-tense `snake_case` word in the trail.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum EventKind {
            $(#[doc = $about] $kind,)*
        }

        impl EventKind {
            /// Every kind, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The kind's name in the trail.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// What the kind means.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self { $(Self::$kind => $about,)* }
            }

            /// What the event's target is; empty where it has none.
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
    SignedOut "signed_out" "Somebody ended a session of their own."
        "the session" []
    SignInFailed "sign_in_failed" "A sign-in was refused."
        "the user, where there is one" ["by" "`api_key` for a service account"]
    RefreshReuse "refresh_reuse" "A spent refresh token came back, and its session was ended."
        "the user" []
    RefreshRefused "refresh_refused" "A refresh token came whose session has ended."
        "the user" []
    PasswordChanged "password_changed" "A user changed the password, which ended the other sessions."
        "the user" ["sessions_revoked" "how many live sessions it ended"]
    PasswordChangeFailed "password_change_failed" "A change of the password was refused."
        "the user" []
    PasswordResetRequested "password_reset_requested" "Somebody asked for a password reset mail."
        "the user, where there is one" []
    PasswordReset "password_reset" "The password was reset, by a mailed token or by the command."
        "the user" ["sessions_revoked" "how many live sessions it ended", "email_verified" "`true` where the email was not verified before", "by" "`command` where it was the command"]
    PasswordResetFailed "password_reset_failed" "A password reset was refused."
        "the user that the token names" []
    SessionRevoked "session_revoked" "A live session was ended by `RevokeSession`."
        "the session" ["user_id" "whose session it was"]
    SessionsRevoked "sessions_revoked" "A user's live sessions were ended by `RevokeAllSessions`."
        "the user" ["count" "how many"]
    UserRegistered "user_registered" "Somebody registered as a user."
        "the user" ["role_id" "the role that the user has from then on", "role_name" "its name", "assignment_id" "the assignment"]
    UserCreated "user_created" "A user was created."
        "the user" ["fields" "names of the fields that were given", "email_verified" "whether the email counts as verified", "role_id" "for the first administrator: the role", "role_name" "its name", "assignment_id" "the assignment", "by" "`command` where it was a command"]
    UserUpdated "user_updated" "A user was changed."
        "the user" ["fields" "names of the fields that changed", "email_verified" "`from`, `to`"]
    EmailChangeFailed "email_change_failed" "A user's change of its own email came with a wrong password."
        "the user" []
    UserDisabled "user_disabled" "A user was disabled, which ended the sessions."
        "the user" ["sessions_revoked" "how many live sessions it ended"]
    UserEnabled "user_enabled" "A user was enabled."
        "the user" []
    UserDeleted "user_deleted" "A user was deleted."
        "the user" ["sessions_revoked" "how many live sessions ended", "assignments" "what the user held: `assignment_id`, `role_id`, `role_name`, `scope`, `expire_time`"]
    RegistrationRefused "registration_refused" "Somebody could not register."
        "" ["reason" "the error's reason"]
    ServiceAccountCreated "service_account_created" "A service account was created."
        "the service account" ["name" "its name"]
    ServiceAccountDeleted "service_account_deleted" "A service account was deleted."
        "the service account" ["name" "its name", "api_keys" "ids of the keys that ended", "assignments" "what it held: `assignment_id`, `role_id`, `role_name`, `scope`, `expire_time`"]
    ApiKeyCreated "api_key_created" "An API key was created."
        "the service account" ["api_key_id" "the key", "credential" "`secret`, `public_key` or `certificate`", "expire_time" "when it ends", "name" "its name", "secret_replaced" "true where the request was repeated and the key got a new secret"]
    ApiKeyRevoked "api_key_revoked" "An API key in force was revoked."
        "the service account" ["api_key_id" "the key"]
    RoleCreated "role_created" "A role was created."
        "the role" ["name" "its name", "level" "its RoleLevel", "system" "whether it is a system role", "permissions" "what it permits"]
    RoleUpdated "role_updated" "A role was changed."
        "the role" ["role_name" "its name now", "name" "`from`, `to`", "level" "`from`, `to`", "permissions_added" "what it permits now", "permissions_removed" "what it permits no more"]
    RoleDeleted "role_deleted" "A role was deleted."
        "the role" ["name" "its name", "level" "its RoleLevel", "system" "whether it was a system role", "permissions" "what it permitted"]
    RoleAssigned "role_assigned" "A role was assigned."
        "the user or service account" ["role_id" "the role", "role_name" "its name", "assignment_id" "the assignment", "scope" "where it applies; absent: everywhere", "expire_time" "when it ends; absent: never"]
    RoleUnassigned "role_unassigned" "A role was taken away."
        "the user or service account" ["role_id" "the role", "role_name" "its name", "assignments" "each that was taken: `assignment_id`, `scope`, `expire_time`"]
    TenantCreated "tenant_created" "The tenant was created."
        "the tenant" ["name" "its name", "slug" "its slug", "settings" "of the settings that the service knows: `from`, `to`", "settings_changed" "names of the settings", "by" "`command` where it was a command"]
    TenantUpdated "tenant_updated" "The tenant was changed."
        "the tenant" ["name" "`from`, `to`", "slug" "`from`, `to`", "settings" "of the settings that the service knows: `from`, `to`", "settings_changed" "names of all settings that changed"]
    TenantSuspended "tenant_suspended" "The tenant was suspended."
        "the tenant" []
    TenantReactivated "tenant_reactivated" "The tenant was reactivated."
        "the tenant" []
    TenantDeleted "tenant_deleted" "The tenant was deleted."
        "the tenant" ["name" "its name", "slug" "its slug"]
    ActedAcrossTenants "acted_across_tenants" "The platform's staff called a method in this tenant."
        "" ["method" "the RPC's path"]
    CallRefused "call_refused" "A call was refused to a caller whose token is valid."
        "" ["method" "the RPC's path", "reason" "the error's reason"]
    RefusalsCounted "refusals_counted" "Refusals beyond those that were recorded one by one."
        "the caller" ["count" "how many in a minute"]
    CallLimited "call_limited" "Calls that were refused for their rate, within a minute on one replica."
        "the tenant" ["class" "the limit: `sign_in`, `registration`, `refresh`, `introspection`, `password_reset`, `api_key`, or `guess` for wrong passwords", "by" "whose calls were counted: `network`, `tenant` or `account`", "count" "how many"]
    DataKeysRewrapped "data_keys_rewrapped" "In the platform's trail: tenants' data keys were wrapped by another master key."
        "" ["master_key" "the key's id", "count" "how many"]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_words_and_each_is_of_one_kind() {
        let names: HashSet<_> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(names.len(), EventKind::ALL.len());
        let is_word =
            |name: &str| name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase());
        assert!(names.into_iter().all(is_word));
    }
}
