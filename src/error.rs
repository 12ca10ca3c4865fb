//! The errors of operations, and the only place that maps them to a gRPC status.
//!
//! Every status carries a `google.rpc.ErrorInfo` with a documented [`ErrorReason`].
//! `INVALID_ARGUMENT` lists all field violations in a `BadRequest`. If a retry helps, `RetryInfo`
//! has the delay before the retry. The cause of an internal error is logged here, and the client
//! gets a general message.
#![warn(missing_docs)]

use std::{borrow::Cow, collections::HashMap, io, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::proto::{v1::ErrorReason, validate::Violations};

/// The `domain` of every `ErrorInfo`.
pub const DOMAIN: &str = "tenantry";

/// The delay before a retry when a store is unavailable or a queue is full.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The SQLSTATE with which Postgres cancels a statement that has waited too long for a lock
/// (`lock_timeout`).
const LOCK_TIMEOUT: &str = "55P03";

/// The result of an operation: a value of type `T`, or an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A limit on the number or the size of stored data.
#[derive(PartialEq, Eq, Debug)]
pub struct Bound {
    /// The value of `limit` in the metadata of the `ErrorInfo`.
    pub name: &'static str,
    /// The largest allowed value.
    pub max: i64,
    /// What the limit counts, for the error message: for example `roles of the tenant`.
    pub meaning: &'static str,
}

/// The reason why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields violate their rules. Contains the field's path and a description for each violation,
    /// but never the value.
    #[error("invalid fields")]
    Fields(Vec<(String, String)>),
    /// One field violates a rule that has its own reason. Contains the reason, the field's path and
    /// a description.
    #[error("{1} {2}")]
    Field(ErrorReason, &'static str, &'static str),
    /// The operation was refused for a documented reason. The client gets the text.
    #[error("{1}")]
    Refused(ErrorReason, Cow<'static, str>),
    /// A limit on stored data is reached.
    #[error("the limit of {} {} is reached", .0.max, .0.meaning)]
    Limit(&'static Bound),
    /// The audit trail no longer has the events after the position of the request, because their
    /// retention period has ended.
    #[error("the events before position {oldest_position} were deleted")]
    PositionTrimmed {
        /// The first position that the trail still has, or will have.
        oldest_position: i64,
    },
    /// A rate limit is reached. The client may retry after this time.
    #[error("rate limited")]
    RateLimited(Duration),
    /// A query failed. [`Error::reason`] distinguishes an outage of Postgres from a defect of this
    /// program.
    #[error("database: {}", postgres_text(.0))]
    Database(#[source] sqlx::Error),
    /// A sealed value can't be opened, because the value was altered. The code that opens values
    /// has logged the failure.
    #[error("a sealed value does not open")]
    Unreadable,
    /// A defect of this program. The text is logged, and the client does not get it.
    #[error("{0}")]
    Defect(Cow<'static, str>),
}

impl Error {
    /// Creates the error for one field that violates its rule.
    pub fn field(path: impl Into<String>, description: impl Into<String>) -> Self {
        Self::Fields(vec![(path.into(), description.into())])
    }

    /// Creates a refusal.
    pub fn refused(reason: ErrorReason, message: impl Into<Cow<'static, str>>) -> Self {
        Self::Refused(reason, message.into())
    }

    /// Creates the error for a resource that does not exist in the request's tenant. The error for
    /// a resource of another tenant is identical, byte by byte.
    #[must_use]
    pub fn not_found() -> Self {
        Self::refused(ErrorReason::NotFound, "not found")
    }

    /// Creates the error for a query that Postgres did not answer within `limit`. For clients, it is
    /// an outage of Postgres.
    #[must_use]
    pub fn query_timeout(limit: Duration) -> Self {
        let text = format!(
            "Postgres did not answer a query within {} s; the query may wait for a lock",
            limit.as_secs()
        );
        Self::Database(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, text)))
    }

    /// Creates the error for a defect of this program.
    pub fn defect(message: impl Into<Cow<'static, str>>) -> Self {
        Self::Defect(message.into())
    }

    /// Whether the call failed immediately, because the last check found Postgres unusable. The
    /// check has already logged the cause. If each call logged it too, an outage would fill the
    /// log.
    fn is_known_outage(&self) -> bool {
        matches!(
            self,
            Self::Database(sqlx::Error::Io(error)) if error.kind() == io::ErrorKind::NotConnected
        )
    }

    /// Whether Postgres cancelled a statement because another transaction held a lock too long.
    fn is_lock_timeout(&self) -> bool {
        matches!(self, Self::Database(error) if sqlstate(error).as_deref() == Some(LOCK_TIMEOUT))
    }

    /// The documented reason of the error.
    #[must_use]
    pub fn reason(&self) -> ErrorReason {
        match self {
            Self::Fields(_) => ErrorReason::InvalidFields,
            Self::Field(reason, ..) | Self::Refused(reason, _) => *reason,
            Self::Limit(_) => ErrorReason::LimitReached,
            Self::PositionTrimmed { .. } => ErrorReason::PositionTrimmed,
            Self::RateLimited(_) => ErrorReason::RateLimited,
            Self::Unreadable => ErrorReason::DataUnreadable,
            Self::Database(error) if took_too_long(error) => ErrorReason::DeadlineExceeded,
            Self::Database(error) if is_outage(error) => ErrorReason::StoreUnavailable,
            Self::Database(error) if is_conflict(error) => ErrorReason::Conflict,
            Self::Database(_) | Self::Defect(_) => ErrorReason::Internal,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let reason = error.reason();
        if error.is_known_outage() {
            tracing::debug!(error = %error, "request failed");
        } else if matches!(reason, ErrorReason::Internal | ErrorReason::StoreUnavailable) {
            tracing::error!(error = %error, "request failed");
        } else if error.is_lock_timeout() {
            tracing::warn!(error = %error, "request failed: a lock in Postgres is held too long");
        }
        match error {
            Error::Fields(fields) => invalid_argument(reason, fields),
            Error::Field(_, path, text) => {
                invalid_argument(reason, vec![(path.into(), text.into())])
            }
            Error::Refused(_, message) => status(reason, &message),
            Error::Limit(bound) => limit_reached(reason, bound),
            Error::PositionTrimmed { oldest_position } => position_trimmed(reason, oldest_position),
            Error::RateLimited(wait) => with_retry(reason, "too many calls; try again later", wait),
            Error::Database(_) | Error::Unreadable | Error::Defect(_) => {
                status(reason, message_without_cause(reason))
            }
        }
    }
}

/// Creates a status with the reason's code and details.
#[must_use]
pub fn status(reason: ErrorReason, message: &str) -> Status {
    with_retry(reason, message, RETRY_DELAY)
}

/// Creates a status whose message and metadata contain the limit and its value. The status has no
/// `RetryInfo`, because a retry does not help.
fn limit_reached(reason: ErrorReason, bound: &Bound) -> Status {
    let (value, meaning) = (bound.max.to_string(), bound.meaning);
    let text = format!("the limit of {value} {meaning} is reached");
    with_metadata(reason, &text, [("limit", bound.name.to_owned()), ("value", value)])
}

/// Creates a status whose message and metadata contain the first position that a trail still has.
/// The status has no `RetryInfo`, because a retry does not help.
fn position_trimmed(reason: ErrorReason, oldest_position: i64) -> Status {
    let text = format!(
        "the events after this position were deleted, because their retention is over; the oldest \
         event of the trail has position {oldest_position}"
    );
    with_metadata(reason, &text, [("oldest_position", oldest_position.to_string())])
}

fn with_metadata<const N: usize>(
    reason: ErrorReason,
    message: &str,
    metadata: [(&str, String); N],
) -> Status {
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
    let mut details = ErrorDetails::new();
    details.set_error_info(reason_text(reason), DOMAIN, HashMap::from(metadata));
    Status::with_error_details(grpc_code(reason), message, details)
}

/// Creates a status. If a retry helps, the details of the status have the delay before the retry.
fn with_retry(reason: ErrorReason, message: &str, delay: Duration) -> Status {
    let code = grpc_code(reason);
    let mut details = ErrorDetails::new();
    details.set_error_info(reason_text(reason), DOMAIN, HashMap::new());
    if matches!(code, Code::Unavailable | Code::ResourceExhausted) {
        details.set_retry_info(Some(delay));
    }
    Status::with_error_details(code, message, details)
}

/// Creates `INVALID_ARGUMENT` with all violations of a request's field rules.
#[must_use]
pub fn invalid_fields(violations: Violations) -> Status {
    invalid_argument(ErrorReason::InvalidFields, violations.into_vec())
}

/// Creates `INVALID_ARGUMENT` for bytes that can't be decoded as the request's type.
#[must_use]
pub fn undecodable() -> Status {
    status(ErrorReason::UndecodableMessage, "the bytes can't be decoded as the request's type")
}

/// Adds an `ErrorInfo` to a status that a library created, so that every error has one. Returns
/// `None` when the status already has details, or is OK.
#[must_use]
pub fn with_reason(library_status: &Status) -> Option<Status> {
    if !library_status.details().is_empty() {
        return None;
    }
    let reason = match library_status.code() {
        Code::Ok => return None,
        // RESOURCE_EXHAUSTED: the message is too large after decompression.
        Code::OutOfRange | Code::ResourceExhausted => ErrorReason::MessageTooLarge,
        Code::Cancelled => ErrorReason::Cancelled,
        Code::DeadlineExceeded => ErrorReason::DeadlineExceeded,
        Code::Unimplemented => ErrorReason::MethodUnknown,
        Code::NotFound => ErrorReason::NotFound,
        // The errors of this program have details, so this error comes from tonic: the request
        // violates the framing of gRPC, or has no message.
        Code::Internal => return Some(undecodable()),
        _ => return Some(status(ErrorReason::Internal, "internal error")),
    };
    Some(status(reason, library_status.message()))
}

/// The text of the reason in `ErrorInfo`: the name of the enum value without its prefix.
#[must_use]
pub fn reason_text(reason: ErrorReason) -> &'static str {
    reason.as_str_name().trim_start_matches("ERROR_REASON_")
}

fn invalid_argument(reason: ErrorReason, fields: Vec<(String, String)>) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason_text(reason), DOMAIN, HashMap::new());
    let summary = summary(&fields);
    details.set_bad_request(
        fields.into_iter().map(|(path, text)| FieldViolation::new(path, text)).collect::<Vec<_>>(),
    );
    Status::with_error_details(grpc_code(reason), summary, details)
}

/// The message of the status: the first line of each of the first three violations. The details of
/// the status have all violations.
fn summary(fields: &[(String, String)]) -> String {
    const MAX_SHOWN: usize = 3;
    let first_line = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    let first_fields = fields.iter().take(MAX_SHOWN);
    let violations = first_fields.map(|(path, text)| format!("{path} {}", first_line(text)));
    let mut summary = violations.collect::<Vec<_>>().join("; ");
    if fields.len() > MAX_SHOWN {
        summary.push_str("; …");
    }
    summary
}

/// The gRPC code of each reason.
fn grpc_code(reason: ErrorReason) -> Code {
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
        | R::EmailProofRequired
        | R::TooManyApiKeys
        | R::TokenOfLostData
        | R::PositionOfLostData
        | R::PositionTrimmed
        | R::LimitReached => Code::FailedPrecondition,
        R::EtagMismatch | R::Conflict => Code::Aborted,
        R::HashingQueueFull | R::Overloaded | R::RateLimited => Code::ResourceExhausted,
        R::MessageTooLarge => Code::OutOfRange,
        R::MethodUnknown | R::EncodingUnsupported => Code::Unimplemented,
        R::StoreUnavailable | R::WatchInterrupted => Code::Unavailable,
        R::DeadlineExceeded => Code::DeadlineExceeded,
        R::Cancelled => Code::Cancelled,
        R::DataUnreadable => Code::DataLoss,
        R::Internal | R::Unspecified => Code::Internal,
    }
}

/// The message for the client, without the cause of the error.
fn message_without_cause(reason: ErrorReason) -> &'static str {
    match reason {
        ErrorReason::StoreUnavailable => "a store that the request needs is unavailable; try again",
        ErrorReason::Conflict => "another transaction changed the same data; try again",
        ErrorReason::DeadlineExceeded => "the deadline passed before the response was ready",
        ErrorReason::DataUnreadable => "the stored data was altered and can't be read",
        _ => "internal error",
    }
}

/// Whether Postgres cancelled the statement (SQLSTATE 57014), because of the call's deadline or
/// because of the maximum time of a statement.
fn took_too_long(error: &sqlx::Error) -> bool {
    sqlstate(error).is_some_and(|code| code == "57014")
}

/// The SQLSTATE with which Postgres refused a statement; `None` for all other errors.
pub(crate) fn sqlstate(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code)
}

/// The text of an error for the log: the message of Postgres with its SQLSTATE, or the error of the
/// connection. The text of sqlx is not used, because it also has a line number of Postgres's own
/// source code, which looks like a line number of the statement.
pub(crate) fn postgres_text(error: &sqlx::Error) -> String {
    match (error.as_database_error(), sqlstate(error)) {
        (Some(refusal), Some(code)) => format!("{} (SQLSTATE {code})", refusal.message()),
        _ => error.to_string(),
    }
}

/// Whether Postgres was unavailable, so that a later retry may succeed.
fn is_outage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        // sqlx returns this error when a connection is closed while it is being set up.
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        // SQLSTATE classes: 08 connection, 53 resources, 57 operator intervention (shutdown).
        // SQLSTATE 25006: the server is read-only, which happens during a failover.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            ["08", "53", "57", "25006"].iter().any(|class| code.starts_with(class))
        }),
        _ => false,
    }
}

/// Whether the transaction failed because of a conflict with another transaction: a serialization
/// failure, a deadlock or a lock timeout.
fn is_conflict(error: &sqlx::Error) -> bool {
    sqlstate(error).is_some_and(|code| matches!(&*code, "40001" | "40P01" | LOCK_TIMEOUT))
}
