//! The audit trail's events over gRPC.

mod rpc;
mod shown;
mod watch;

use std::sync::Arc;

use crate::{audit::SealSignal, bounded::Bounded, db::Db, ids::TenantId, paging::Pages};

/// The implementation of `AuditService`.
pub struct Events {
    pub db: Db,
    pub pages: Pages,
    /// Signals that events were sealed.
    pub seals: Arc<SealSignal>,
    /// The open streams, which are limited because each polls Postgres.
    pub streams: Arc<Bounded<TenantId>>,
}
