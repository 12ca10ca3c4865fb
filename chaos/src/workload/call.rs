//! A call: chooses a replica, measures the times, and classifies the result.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use prost::Message;
use tokio::time::timeout;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

use super::world::World;
use crate::history::{Condition, Fact, Freshness, Op, OpId, Outcome, Time};

/// Deadline of a call.
const DEADLINE: Duration = Duration::from_secs(3);

/// Deadline of the calls of a reader. A cached decision needs about a millisecond.
const READER_DEADLINE: Duration = Duration::from_millis(250);

/// Time in which a writer avoids a replica that has not answered.
const AVOIDANCE: Duration = Duration::from_secs(1);

/// Maximum time until the client drops a call that it cancels, in milliseconds.
const CANCEL_WITHIN_MS: u64 = 30;

/// A client of all replicas. Each worker has its own.
pub struct Client {
    pub world: Arc<World>,
    pub rng: Rng,
    kind: Kind,
    channels: Vec<Channel>,
    /// For each replica, the time until which a writer avoids it.
    avoided_until: Vec<Time>,
}

/// The role of a client in the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sends all kinds of calls. It avoids replicas that do not answer, as a load balancer does, so
    /// that writes continue while a replica is cut off.
    Writer,
    /// Asks for decisions that a cache may answer, with a short deadline. It avoids no replica, so
    /// that it also asks a replica that is cut off from the stores.
    Reader,
}

/// Everything that a call needs in addition to its message.
pub struct Call<'a> {
    /// `/tenantry.v1.Service/Method`
    pub path: &'static str,
    /// Access token; empty for a call without one.
    pub token: &'a str,
    pub tenant: Option<usize>,
    /// The arguments as text, for the report.
    pub arguments: String,
    /// The number of the replica to call; `None` for any replica.
    pub replica: Option<usize>,
}

impl Client {
    /// A client with its own connections.
    ///
    /// # Errors
    /// Returns an error when an address is invalid.
    pub fn new(world: Arc<World>, rng: Rng, kind: Kind) -> anyhow::Result<Self> {
        let mut channels = Vec::new();
        for addr in &world.replicas {
            let endpoint = Endpoint::from_shared(format!("http://{addr}"))?;
            channels.push(endpoint.connect_timeout(Duration::from_secs(1)).connect_lazy());
        }
        let avoided_until = vec![Time::ZERO; channels.len()];
        Ok(Self { world, rng, kind, channels, avoided_until })
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    fn choose_replica(&mut self) -> usize {
        let now = self.world.history.now();
        let available: Vec<usize> =
            (0..self.channels.len()).filter(|number| self.avoided_until[*number] <= now).collect();
        if self.kind == Kind::Reader || available.is_empty() || self.rng.u8(..10) == 0 {
            return self.rng.usize(..self.channels.len());
        }
        available[self.rng.usize(..available.len())]
    }

    /// Sends a call. Returns the operation, which the caller completes and adds to the history,
    /// and the response if there is one.
    pub async fn send<Req, Resp>(&mut self, call: Call<'_>, message: Req) -> (Op, Option<Resp>)
    where
        Req: Message + Send + Sync + 'static,
        Resp: Message + Default + Send + Sync + 'static,
    {
        let replica = call.replica.unwrap_or_else(|| self.choose_replica());
        let id = self.world.history.next_id();
        // A call to a chosen replica is a probe, which is never cancelled.
        let limit = if call.replica.is_none() && self.world.cancels_calls() && self.rng.bool() {
            Duration::from_millis(self.rng.u64(..CANCEL_WITHIN_MS))
        } else if self.kind == Kind::Reader {
            READER_DEADLINE
        } else {
            DEADLINE
        };
        let channel = self.channels[replica].clone();
        let start = self.world.history.now();
        let sent = unary::<Req, Resp>(channel, &call, id, message);
        let result = timeout(limit, sent).await;
        let end = self.world.history.now();
        let (outcome, response) = match result {
            Err(_) => (Outcome::Unknown("no response in time".to_owned()), None),
            Ok(Err(status)) => (classify(&status), None),
            Ok(Ok(response)) => (Outcome::Ok, Some(response)),
        };
        if matches!(outcome, Outcome::Unknown(_)) {
            self.avoided_until[replica] = end + AVOIDANCE;
        }
        let op = Op {
            id,
            replica,
            method: call.path.rsplit('/').next().unwrap_or(call.path),
            arguments: call.arguments,
            start,
            end,
            outcome,
            tenant: call.tenant,
            effects: Vec::new(),
            evidence: Vec::new(),
            event: None,
            refresh: None,
            token: None,
            foreign_rows: Vec::new(),
            is_final: self.world.is_final(),
        };
        (op, response)
    }

    /// Sends a call of a tenant's administrator.
    pub async fn send_as_admin<Req, Resp>(
        &mut self,
        path: &'static str,
        tenant: usize,
        arguments: String,
        message: Req,
    ) -> (Op, Option<Resp>)
    where
        Req: Message + Send + Sync + 'static,
        Resp: Message + Default + Send + Sync + 'static,
    {
        let world = self.world.clone();
        let token = &world.tenants[tenant].admin_token;
        let call = Call { path, token, tenant: Some(tenant), arguments, replica: None };
        let (mut op, response) = self.send(call, message).await;
        admitted(&mut op, &[Condition::Is(Fact::TenantActive(tenant), true)]);
        (op, response)
    }

    /// Adds a completed operation to the history.
    pub fn record(&self, op: Op) {
        self.world.history.push(op);
    }
}

/// Adds the evidence that follows from the acceptance or the refusal of the call's access token.
/// `in_force` are the conditions under which the token is valid.
pub fn admitted(op: &mut Op, in_force: &[Condition]) {
    let in_force = Condition::All(in_force.to_vec());
    match &op.outcome {
        Outcome::Ok => op.add_evidence(in_force, Freshness::Bounded),
        Outcome::Refused { reason, .. }
            if reason == "TOKEN_INVALID" || reason == "TENANT_SUSPENDED" =>
        {
            op.add_evidence(in_force.negated(), Freshness::Bounded);
        }
        _ => {}
    }
}

async fn unary<Req, Resp>(
    channel: Channel,
    call: &Call<'_>,
    id: OpId,
    message: Req,
) -> Result<Resp, Status>
where
    Req: Message + Send + Sync + 'static,
    Resp: Message + Default + Send + Sync + 'static,
{
    let invalid = |_| Status::invalid_argument("not metadata");
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    let metadata = request.metadata_mut();
    metadata.insert("x-request-id", correlation_id(id).parse().map_err(invalid)?);
    if !call.token.is_empty() {
        metadata
            .insert("authorization", format!("Bearer {}", call.token).parse().map_err(invalid)?);
    }
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static(call.path);
    let response = grpc.unary(request, path, ProstCodec::<Req, Resp>::default()).await?;
    Ok(response.into_inner())
}

/// The correlation id of an operation's call.
pub fn correlation_id(id: OpId) -> String {
    format!("chaos-{id}")
}

/// The operation that has this correlation id.
pub fn operation_of(correlation_id: &str) -> Option<OpId> {
    correlation_id.strip_prefix("chaos-")?.parse().ok()
}

fn classify(status: &Status) -> Outcome {
    // A status without an ErrorInfo does not come from the service, but from the client's own
    // connection. So it does not say whether the call had an effect.
    let details = status.get_error_details();
    let Some(info) = details.error_info() else {
        return Outcome::Unknown(format!("{:?} {}", status.code(), status.message()));
    };
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
            Outcome::Unknown(format!("{:?} {}", status.code(), info.reason))
        }
        Code::Internal | Code::Unknown | Code::DataLoss => {
            Outcome::Internal(format!("{:?} {}", status.code(), info.reason))
        }
        code => Outcome::Refused { code: format!("{code:?}"), reason: info.reason.clone() },
    }
}
