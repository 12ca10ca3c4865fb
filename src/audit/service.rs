//! The gRPC service for the audit trail.

use std::sync::Arc;

use super::ChainSignal;
use crate::{api::paging::Pages, db::Db, gate::StreamPermits};

/// The implementation of `AuditService`.
pub struct Events {
    pub db: Db,
    pub pages: Pages,
    /// Signals that events were sealed.
    pub chain_signal: Arc<ChainSignal>,
    /// Permits for open streams. Their number is limited, because each stream polls Postgres.
    pub streams: StreamPermits,
}
