//! The service that serves the events of the audit trail over gRPC.

use std::sync::Arc;

use super::SealSignal;
use crate::{api::paging::Pages, concurrency::bounded::BoundedPermits, db::Db, ids::TenantId};

/// The implementation of `AuditService`.
pub struct Events {
    pub db: Db,
    pub pages: Pages,
    /// Signals that events were sealed.
    pub seals: Arc<SealSignal>,
    /// The open streams, which are limited because each polls Postgres.
    pub streams: Arc<BoundedPermits<TenantId>>,
}
