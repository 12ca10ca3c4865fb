//! The calls that the scenarios send.

use std::ops::Range;

use bytes::Bytes;
use prost::Message;
use tenantry::proto::v1::{
    BatchCheckItem, BatchCheckRequest, BatchCheckResponse, BatchCheckResult, CheckRequest,
    Consistency, ListUsersRequest, LoginRequest, RefreshRequest,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    load::{Calls, Request, Verdict, serving_or_allowed},
    world::{
        data,
        databases::PASSWORD,
        shape::{self, PERMISSIONS, Shape},
        tokens::Bearer,
    },
};

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const CHECK: &str = "/tenantry.v1.PermissionService/Check";
const BATCH_CHECK: &str = "/tenantry.v1.PermissionService/BatchCheck";
const LOGIN: &str = "/tenantry.v1.AuthService/Login";
const LIST_USERS: &str = "/tenantry.v1.UserService/ListUsers";
const REFRESH: &str = "/tenantry.v1.AuthService/Refresh";

/// Health checks without a token.
pub fn health() -> Calls {
    let request = Request { token: None, message: Bytes::new() };
    Calls::new("health", HEALTH, vec![request], serving_or_allowed)
}

/// Health checks with these tokens, in turn.
pub fn health_with_tokens(tokens: &[Bearer]) -> Calls {
    let requests = tokens
        .iter()
        .map(|token| Request { token: Some(token.clone()), message: Bytes::new() })
        .collect();
    Calls::new("health with token", HEALTH, requests, serving_or_allowed)
}

/// Each subject checks a permission that the subject holds, with the subject's token. The first
/// token belongs to the session `first_session`, the next token to the next session.
pub fn check_self(shape: Shape, tokens: &[Bearer], first_session: u64) -> Calls {
    let requests = tokens
        .iter()
        .zip(first_session..)
        .map(|(token, session)| {
            let permission = shape.permission_of(shape.session_user(session));
            request(token, &CheckRequest { permission, ..CheckRequest::default() })
        })
        .collect();
    Calls::new("Check", CHECK, requests, serving_or_allowed)
}

/// The checker (the user that may check other subjects) checks these subjects.
pub fn check_subjects(shape: Shape, checker_tokens: &[Bearer], subjects: Vec<u64>) -> Calls {
    checks_with_consistency(shape, checker_tokens, subjects, Consistency::MinimizeLatency)
}

/// The checker checks these subjects. The server decides from Postgres and not from its cache.
pub fn check_fully_consistent(
    shape: Shape,
    checker_tokens: &[Bearer],
    subjects: Vec<u64>,
) -> Calls {
    checks_with_consistency(shape, checker_tokens, subjects, Consistency::FullyConsistent)
        .with_name("Check from Postgres")
}

fn checks_with_consistency(
    shape: Shape,
    checker_tokens: &[Bearer],
    subjects: Vec<u64>,
    consistency: Consistency,
) -> Calls {
    let to_request = |(subject, token)| {
        let BatchCheckItem { user_id, permission, .. } = question_about(shape, subject);
        let consistency = consistency.into();
        request(
            token,
            &CheckRequest { user_id, permission, consistency, ..CheckRequest::default() },
        )
    };
    let requests =
        subjects.into_iter().zip(checker_tokens.iter().cycle()).map(to_request).collect();
    Calls::new("Check", CHECK, requests, serving_or_allowed)
}

/// Each subject checks all [`PERMISSIONS`] permissions with the subject's token, like a program
/// that shows a user which actions are allowed.
pub fn batch_self(tokens: &[Bearer]) -> Calls {
    let question = |number| {
        let permission = shape::permission(number);
        BatchCheckItem { permission, ..BatchCheckItem::default() }
    };
    let message = batch((0..PERMISSIONS).map(question).collect());
    let requests = tokens.iter().map(|token| request(token, &message)).collect();
    Calls::new("BatchCheck, about the caller", BATCH_CHECK, requests, expect_some_allowed)
}

/// The checker checks these subjects, `size` subjects per batch.
pub fn batches(shape: Shape, checker_tokens: &[Bearer], subjects: Range<u64>, size: u64) -> Calls {
    let batch_starts = (subjects.start..subjects.end).step_by(usize::try_from(size).unwrap_or(1));
    let to_request = |(first_subject, token): (u64, &Bearer)| {
        let batch_subjects = first_subject..(first_subject + size).min(subjects.end);
        request(
            token,
            &batch(batch_subjects.map(|subject| question_about(shape, subject)).collect()),
        )
    };
    let requests = batch_starts.zip(checker_tokens.iter().cycle()).map(to_request).collect();
    Calls::new("BatchCheck, about subjects", BATCH_CHECK, requests, expect_all_allowed)
}

/// Question about a permission that the subject holds.
fn question_about(shape: Shape, subject: u64) -> BatchCheckItem {
    let user = shape.subject(subject);
    BatchCheckItem {
        user_id: shape::user_id(user).to_string(),
        permission: shape.permission_of(user),
        ..BatchCheckItem::default()
    }
}

fn batch(items: Vec<BatchCheckItem>) -> BatchCheckRequest {
    BatchCheckRequest { items, ..BatchCheckRequest::default() }
}

fn request(token: &Bearer, message: &impl Message) -> Request {
    Request { token: Some(token.clone()), message: message.encode_to_vec().into() }
}

/// Accepts a batch in which no question has an error and at least one question is allowed. A
/// subject holds some but not all permissions.
fn expect_some_allowed(result: &Result<Bytes, Status>) -> Verdict {
    judge_batch(result, |results| {
        results.len() as u64 == PERMISSIONS
            && results.iter().all(|result| result.error.is_none())
            && results.iter().any(|result| result.allowed)
    })
}

fn expect_all_allowed(result: &Result<Bytes, Status>) -> Verdict {
    judge_batch(result, |results| {
        !results.is_empty() && results.iter().all(|result| result.allowed)
    })
}

fn judge_batch(
    result: &Result<Bytes, Status>,
    is_good: fn(&[BatchCheckResult]) -> bool,
) -> Verdict {
    let decoded =
        result.as_ref().ok().and_then(|message| BatchCheckResponse::decode(&message[..]).ok());
    if decoded.is_some_and(|response| is_good(&response.results)) {
        Verdict::Good
    } else {
        Verdict::Wrong
    }
}

/// Sign-ins of the guests (the users with a password), in turn.
pub fn sign_in(shape: Shape) -> Calls {
    let request = |guest| {
        let message = LoginRequest {
            email: data::email(guest),
            password: PASSWORD.to_owned(),
            organization_slug: "bench".to_owned(),
            ..LoginRequest::default()
        };
        Request { token: None, message: message.encode_to_vec().into() }
    };
    let requests = shape.guests().map(request).collect();
    Calls::new("Login", LOGIN, requests, expect_success_or_overload)
}

/// Refreshes with these tokens. Each token works only once.
pub fn refresh(tokens: &[String]) -> Calls {
    let request = |token: &String| {
        let message = RefreshRequest { refresh_token: token.clone(), ..RefreshRequest::default() };
        Request { token: None, message: message.encode_to_vec().into() }
    };
    Calls::new("Refresh", REFRESH, tokens.iter().map(request).collect(), expect_success)
}

/// The checker lists the users with this filter and order, and reads only the first page, with the
/// default page size.
pub fn search(checker_tokens: &[Bearer], filter: &str, order_by: &str) -> Calls {
    let message = ListUsersRequest {
        filter: filter.to_owned(),
        order_by: order_by.to_owned(),
        ..ListUsersRequest::default()
    };
    let requests = checker_tokens.iter().map(|token| request(token, &message)).collect();
    Calls::new("ListUsers", LIST_USERS, requests, expect_success)
}

fn expect_success(result: &Result<Bytes, Status>) -> Verdict {
    if result.is_ok() { Verdict::Good } else { Verdict::Wrong }
}

/// Accepts a success. A full hashing queue is an expected refusal, if the response has a retry
/// delay.
fn expect_success_or_overload(result: &Result<Bytes, Status>) -> Verdict {
    match result {
        Ok(_) => Verdict::Good,
        Err(status) if status.code() == Code::ResourceExhausted => {
            let wait = status.get_details_retry_info().and_then(|info| info.retry_delay);
            wait.map_or(Verdict::Wrong, Verdict::Refused)
        }
        Err(_) => Verdict::Wrong,
    }
}
