//! Limits the number of open streams of server reflection.
//!
//! A stream holds descriptors that its client has not read yet, and needs no token. Without a limit,
//! clients that read nothing could fill the memory.

use std::{net::IpAddr, sync::Arc};

use http::Response;
use http_body_util::BodyExt;
use tonic::{Status, body::Body};

use crate::{
    concurrency::bounded::{BoundedPermit, BoundedPermits},
    error::Error,
    limits,
};

/// Start of the path of the reflection methods.
const PATH_PREFIX: &str = "/grpc.reflection.";

/// Maximum number of open reflection streams on this replica.
const REFLECTION_STREAMS: usize = 200;

/// Maximum number of open reflection streams from one network.
const REFLECTION_STREAMS_OF_NETWORK: usize = 100;

/// The permit of one open reflection stream.
pub(super) type ReflectionPermit = BoundedPermit<IpAddr>;

/// The permits for reflection streams.
pub(super) struct ReflectionStreams(Arc<BoundedPermits<IpAddr>>);

impl ReflectionStreams {
    pub(super) fn new() -> Self {
        Self(BoundedPermits::new(REFLECTION_STREAMS, REFLECTION_STREAMS_OF_NETWORK))
    }

    /// Takes a permit for a call to reflection; `None` for a call of another method.
    ///
    /// # Errors
    /// `OVERLOADED` when too many streams are open, in total or from the client's network.
    pub(super) fn acquire(
        &self,
        path: &str,
        client: IpAddr,
    ) -> Result<Option<ReflectionPermit>, Status> {
        if !path.starts_with(PATH_PREFIX) {
            return Ok(None);
        }
        let permit = self.0.acquire(limits::network(client)).map_err(Error::from)?;
        Ok(Some(permit))
    }
}

/// Keeps the permit until the response is sent or dropped.
pub(super) fn hold_permit(
    response: Response<Body>,
    permit: Option<ReflectionPermit>,
) -> Response<Body> {
    let Some(permit) = permit else { return response };
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _permit = &permit;
            frame
        }))
    })
}
