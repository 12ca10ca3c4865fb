//! The calls that scenarios make.

use bytes::Bytes;
use prost::Message;
use tenantry::proto::v1::CheckRequest;

use super::Bench;
use crate::{
    load::{Calls, Request, serving_or_allowed},
    world::{
        shape::{SESSIONS, Shape},
        tokens::Bearer,
    },
};

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const CHECK: &str = "/tenantry.v1.PermissionService/Check";

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

/// The tokens of all subjects' sessions.
///
/// # Errors
/// Never in practice: loaded keys sign.
pub fn subjects(bench: &Bench, users: u64) -> anyhow::Result<Vec<Bearer>> {
    bench.world.tokens(users, 0, SESSIONS)
}
