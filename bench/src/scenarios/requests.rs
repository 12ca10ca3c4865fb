//! The calls that scenarios make.

use bytes::Bytes;
use prost::Message;
use tenantry::proto::v1::{
    BatchCheckItem, BatchCheckRequest, BatchCheckResponse, CheckRequest, LoginRequest,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::Bench;
use crate::{
    load::{Calls, Request, Verdict, serving_or_allowed},
    world::{
        PASSWORD, data,
        shape::{self, PERMISSIONS, SESSIONS, Shape},
        tokens::Bearer,
    },
};

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const CHECK: &str = "/tenantry.v1.PermissionService/Check";
const BATCH_CHECK: &str = "/tenantry.v1.PermissionService/BatchCheck";
const LOGIN: &str = "/tenantry.v1.AuthService/Login";

/// The questions of a batch: as many as there are permissions.
const BATCH: u64 = PERMISSIONS;

/// Health checks without a token.
pub fn health() -> Calls {
    let request = Request { token: None, message: Bytes::new() };
    Calls::new("health", HEALTH, vec![request], serving_or_allowed)
}

/// Health checks with these tokens, in turn.
pub fn health_with(tokens: &[Bearer]) -> Calls {
    let requests = tokens
        .iter()
        .map(|token| Request { token: Some(token.clone()), message: Bytes::new() })
        .collect();
    Calls::new("health with token", HEALTH, requests, serving_or_allowed)
}

/// Each subject asks about itself, with its token, whether it may do what it may.
pub fn check_self(shape: Shape, tokens: &[Bearer]) -> Calls {
    let requests = tokens
        .iter()
        .zip(0..)
        .map(|(token, session)| {
            let permission = shape.permission_of(shape.session_user(session));
            let message = CheckRequest { permission, ..CheckRequest::default() };
            Request { token: Some(token.clone()), message: message.encode_to_vec().into() }
        })
        .collect();
    Calls::new("Check", CHECK, requests, serving_or_allowed)
}

/// Each subject asks about itself, with its token, for every permission that there
/// is, as a program does that shows what its user may do.
pub fn batch_self(tokens: &[Bearer]) -> Calls {
    let ask = |number| BatchCheckItem {
        permission: shape::permission(number),
        ..BatchCheckItem::default()
    };
    let message = batch((0..BATCH).map(ask).collect());
    let requests = tokens
        .iter()
        .map(|token| Request { token: Some(token.clone()), message: message.clone() })
        .collect();
    Calls::new("BatchCheck, oneself", BATCH_CHECK, requests, hundred_decisions)
}

/// The asker asks about a hundred subjects at once.
pub fn batch_others(shape: Shape, askers: &[Bearer]) -> Calls {
    let requests = askers
        .iter()
        .zip(0..)
        .map(|(token, turn)| {
            let subjects = turn * BATCH..(turn + 1) * BATCH;
            let message = batch(subjects.map(|subject| about(shape, subject)).collect());
            Request { token: Some(token.clone()), message }
        })
        .collect();
    Calls::new("BatchCheck, subjects", BATCH_CHECK, requests, hundred_decisions)
}

/// Asks whether a subject may do what it may.
fn about(shape: Shape, subject: u64) -> BatchCheckItem {
    let user = shape.subject(subject);
    BatchCheckItem {
        user_id: shape::user_id(user).to_string(),
        permission: shape.permission_of(user),
        ..BatchCheckItem::default()
    }
}

fn batch(items: Vec<BatchCheckItem>) -> Bytes {
    BatchCheckRequest { items, ..BatchCheckRequest::default() }.encode_to_vec().into()
}

/// A batch of what subjects hold all or in part: each question must be decided, and
/// some of them granted.
fn hundred_decisions(answer: &Result<Bytes, Status>) -> Verdict {
    let reply = answer.as_ref().ok().and_then(|reply| BatchCheckResponse::decode(&reply[..]).ok());
    let decided = reply.is_some_and(|reply| {
        reply.results.len() as u64 == BATCH
            && reply.results.iter().all(|result| result.error.is_none())
            && reply.results.iter().any(|result| result.allowed)
    });
    if decided { Verdict::Good } else { Verdict::Wrong }
}

/// The guest signs in.
pub fn sign_in(shape: Shape) -> Calls {
    let message = LoginRequest {
        email: data::email(shape.guest()),
        password: PASSWORD.to_owned(),
        organization_slug: "bench".to_owned(),
        ..LoginRequest::default()
    };
    let request = Request { token: None, message: message.encode_to_vec().into() };
    Calls::new("Login", LOGIN, vec![request], signed_in_or_told_to_wait)
}

fn signed_in_or_told_to_wait(answer: &Result<Bytes, Status>) -> Verdict {
    match answer {
        Ok(_) => Verdict::Good,
        Err(status) if status.code() == Code::ResourceExhausted => {
            let wait = status.get_details_retry_info().and_then(|info| info.retry_delay);
            wait.map_or(Verdict::Wrong, Verdict::Refused)
        }
        Err(_) => Verdict::Wrong,
    }
}

/// The tokens of all subjects' sessions.
///
/// # Errors
/// Never in practice: loaded keys sign.
pub fn subjects(bench: &Bench, users: u64) -> anyhow::Result<Vec<Bearer>> {
    bench.world.tokens(users, 0, SESSIONS)
}
