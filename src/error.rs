//! What can go wrong, and the only place that chooses a gRPC status for it.
//!
//! Every status carries a `google.rpc.ErrorInfo` with a documented
//! [`ErrorReason`]; field violations come all at once in a `BadRequest`, and
//! `RetryInfo` says when a retry helps. Causes inside the server are logged
//! here and answered blandly.

use std::{borrow::Cow, collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::proto::{v1::ErrorReason, validate::Violations};

/// The `domain` of every `ErrorInfo`.
pub const DOMAIN: &str = "tenantry";

/// How long a caller should wait before it tries again when a store is away or
/// a queue is full.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The result of an operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The largest count or number of bytes of something that is stored.
#[derive(PartialEq, Eq, Debug)]
pub struct Bound {
    /// What `limit` in the metadata of the error's `ErrorInfo` says.
    pub name: &'static str,
    /// The largest value.
    pub max: i64,
    /// What it is about, for people.
    pub meaning: &'static str,
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields break their rules: each field's path and what is wrong with it,
    /// without its value.
    #[error("invalid fields")]
    Fields(Vec<(String, String)>),
    /// One field breaks a rule whose breach has a reason of its own: its path and
    /// what is wrong with it.
    #[error("{1} {2}")]
    Field(ErrorReason, &'static str, &'static str),
    /// The operation was refused for a documented reason; the text is for the
    /// caller.
    #[error("{1}")]
    Refused(ErrorReason, Cow<'static, str>),
    /// There is as much of something stored as there may be.
    #[error("there are as many {} as there may be", .0.meaning)]
    Limit(&'static Bound),
    /// Too much of something: it may come again after this time.
    #[error("rate limited")]
    RateLimited(Duration),
    /// Postgres failed; [`Status`] tells an outage from a defect.
    #[error("database: {0}")]
    Database(#[source] sqlx::Error),
    /// What is sealed of something does not open. It was altered, and that was logged.
    #[error("a sealed value does not open")]
    Unreadable,
    /// A defect of ours; the text is for the log.
    #[error("{0}")]
    Defect(Cow<'static, str>),
}

impl Error {
    /// One field breaks its rule.
    pub fn field(path: impl Into<String>, description: impl Into<String>) -> Self {
        Self::Fields(vec![(path.into(), description.into())])
    }

    /// A refusal.
    pub fn refused(reason: ErrorReason, message: impl Into<Cow<'static, str>>) -> Self {
        Self::Refused(reason, message.into())
    }

    /// No such thing in the request's tenant. The answer for another tenant's
    /// things is this one too, to the byte.
    #[must_use]
    pub fn not_found() -> Self {
        Self::refused(ErrorReason::NotFound, "not found")
    }

    /// A defect of ours.
    pub fn defect(message: impl Into<Cow<'static, str>>) -> Self {
        Self::Defect(message.into())
    }

    /// The documented reason.
    #[must_use]
    pub fn reason(&self) -> ErrorReason {
        match self {
            Self::Fields(_) => ErrorReason::InvalidFields,
            Self::Field(reason, ..) | Self::Refused(reason, _) => *reason,
            Self::Limit(_) => ErrorReason::LimitReached,
            Self::RateLimited(_) => ErrorReason::RateLimited,
            Self::Unreadable => ErrorReason::DataUnreadable,
            Self::Database(error) if took_too_long(error) => ErrorReason::DeadlineExceeded,
            Self::Database(error) if is_outage(error) => ErrorReason::StoreUnavailable,
            Self::Database(error) if is_race(error) => ErrorReason::Conflict,
            Self::Database(_) | Self::Defect(_) => ErrorReason::Internal,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let reason = error.reason();
        if matches!(reason, ErrorReason::Internal | ErrorReason::StoreUnavailable) {
            tracing::error!(error = %error, "request failed");
        }
        match error {
            Error::Fields(fields) => invalid(reason, fields),
            Error::Field(_, path, text) => invalid(reason, vec![(path.into(), text.into())]),
            Error::Refused(_, message) => status(reason, &message),
            Error::Limit(bound) => limit_reached(reason, bound),
            Error::RateLimited(wait) => with_retry(reason, "too many; try again later", wait),
            Error::Database(_) | Error::Unreadable | Error::Defect(_) => {
                status(reason, plain_message(reason))
            }
        }
    }
}

/// A status with the reason's code and details.
#[must_use]
pub fn status(reason: ErrorReason, message: &str) -> Status {
    with_retry(reason, message, RETRY_DELAY)
}

/// A status that names the bound and its value, also for programs. A retry does not help.
fn limit_reached(reason: ErrorReason, bound: &Bound) -> Status {
    let (value, meaning) = (bound.max.to_string(), bound.meaning);
    let text = format!("there may be no more than {value} {meaning}");
    let metadata = [("limit", bound.name.to_owned()), ("value", value)];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
    let mut details = ErrorDetails::new();
    details.set_error_info(reason_text(reason), DOMAIN, HashMap::from(metadata));
    Status::with_error_details(code(reason), text, details)
}

/// A status that tells, where a retry helps, when.
fn with_retry(reason: ErrorReason, message: &str, delay: Duration) -> Status {
    let code = code(reason);
    let mut details = ErrorDetails::new();
    details.set_error_info(reason_text(reason), DOMAIN, HashMap::new());
    if matches!(code, Code::Unavailable | Code::ResourceExhausted) {
        details.set_retry_info(Some(delay));
    }
    Status::with_error_details(code, message, details)
}

/// `INVALID_ARGUMENT` with every violation of a request's field rules.
#[must_use]
pub fn invalid_fields(violations: Violations) -> Status {
    invalid(ErrorReason::InvalidFields, violations.into_vec())
}

/// `INVALID_ARGUMENT` for bytes that are no message of the request's type.
#[must_use]
pub fn undecodable() -> Status {
    status(ErrorReason::UndecodableMessage, "the bytes are no message of the request's type")
}

/// Gives a status that some library made the details that ours have, so that a
/// client finds an `ErrorInfo` on each; `None` when it has details already.
#[must_use]
pub fn with_reason(foreign: &Status) -> Option<Status> {
    if !foreign.details().is_empty() {
        return None;
    }
    let reason = match foreign.code() {
        Code::Ok => return None,
        Code::OutOfRange => ErrorReason::MessageTooLarge,
        Code::ResourceExhausted => ErrorReason::Overloaded,
        Code::Cancelled => ErrorReason::Cancelled,
        Code::DeadlineExceeded => ErrorReason::DeadlineExceeded,
        Code::Unimplemented => ErrorReason::MethodUnknown,
        Code::NotFound => ErrorReason::NotFound,
        // Ours has details, so this is tonic's: a request that breaks gRPC's
        // framing, or has no message.
        Code::Internal => return Some(undecodable()),
        _ => return Some(status(ErrorReason::Internal, "internal error")),
    };
    Some(status(reason, foreign.message()))
}

/// `reason` as ErrorInfo spells it: without the enum's prefix.
#[must_use]
pub fn reason_text(reason: ErrorReason) -> &'static str {
    reason.as_str_name().trim_start_matches("ERROR_REASON_")
}

fn invalid(reason: ErrorReason, fields: Vec<(String, String)>) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason_text(reason), DOMAIN, HashMap::new());
    let summary = summary(&fields);
    details.set_bad_request(
        fields.into_iter().map(|(path, text)| FieldViolation::new(path, text)).collect::<Vec<_>>(),
    );
    Status::with_error_details(code(reason), summary, details)
}

/// The first line of the first few violations, for people: the details have them all.
fn summary(fields: &[(String, String)]) -> String {
    const SHOWN: usize = 3;
    let line = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    let shown = fields.iter().take(SHOWN).map(|(path, text)| format!("{path} {}", line(text)));
    let mut summary = shown.collect::<Vec<_>>().join("; ");
    if fields.len() > SHOWN {
        summary.push_str("; …");
    }
    summary
}

/// The table of threats and codes: which status each reason has.
fn code(reason: ErrorReason) -> Code {
    use ErrorReason as R;
    match reason {
        R::InvalidFields
        | R::UndecodableMessage
        | R::InvalidMetadata
        | R::InvalidPageToken
        | R::RequestIdReused
        | R::ConsistencyTokenInvalid
        | R::PasswordTooCommon
        | R::TenantRequired => Code::InvalidArgument,
        R::TokenMissing | R::TokenInvalid | R::InvalidCredentials => Code::Unauthenticated,
        R::PermissionMissing
        | R::TenantMismatch
        | R::TenantSuspended
        | R::GrantNotHeld
        | R::LevelTooHigh
        | R::RegistrationClosed
        | R::SystemRole
        | R::GrantOutlastsGiver
        | R::SignInNotFresh
        | R::OwnApiKey => Code::PermissionDenied,
        R::NotFound => Code::NotFound,
        R::EmailTaken
        | R::SlugTaken
        | R::RoleNameTaken
        | R::RoleAlreadyAssigned
        | R::ServiceAccountNameTaken
        | R::CertificateNameTaken => Code::AlreadyExists,
        R::LastOrgAdmin
        | R::RoleInUse
        | R::PlatformTenant
        | R::MailOff
        | R::TooManyApiKeys
        | R::LimitReached => Code::FailedPrecondition,
        R::EtagMismatch | R::Conflict => Code::Aborted,
        R::HashingQueueFull | R::Overloaded | R::RateLimited => Code::ResourceExhausted,
        R::MessageTooLarge => Code::OutOfRange,
        R::MethodUnknown => Code::Unimplemented,
        R::StoreUnavailable | R::WatchInterrupted => Code::Unavailable,
        R::DeadlineExceeded => Code::DeadlineExceeded,
        R::Cancelled => Code::Cancelled,
        R::DataUnreadable => Code::DataLoss,
        R::Internal | R::Unspecified => Code::Internal,
    }
}

fn plain_message(reason: ErrorReason) -> &'static str {
    match reason {
        ErrorReason::StoreUnavailable => "a store that the answer needs is away; try again",
        ErrorReason::Conflict => "the request lost a race; try it again",
        ErrorReason::DeadlineExceeded => "the deadline passed before the answer was there",
        ErrorReason::DataUnreadable => "what is stored of it was altered and can't be read",
        _ => "internal error",
    }
}

/// Whether Postgres ended a statement at its time-out: the call's deadline, or the longest
/// that a statement may take (SQLSTATE 57014).
fn took_too_long(error: &sqlx::Error) -> bool {
    code_of(error).is_some_and(|code| code == "57014")
}

fn code_of(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code)
}

/// Whether Postgres was not there to answer, so that a retry is safe.
fn is_outage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        // A connection that ended while it was made reads like this.
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        // SQLSTATE: 08 connection, 53 resources, 57 operator intervention (a
        // shutdown), 25006 a server that only reads, as in a failover.
        sqlx::Error::Database(e) => e.code().is_some_and(|code| {
            ["08", "53", "57", "25006"].iter().any(|class| code.starts_with(class))
        }),
        _ => false,
    }
}

/// Whether another transaction won: serialization failure, deadlock, or a lock
/// that took too long.
fn is_race(error: &sqlx::Error) -> bool {
    code_of(error).is_some_and(|code| matches!(&*code, "40001" | "40P01" | "55P03"))
}
