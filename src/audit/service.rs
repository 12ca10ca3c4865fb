//! Shows the audit trail's events.

use std::sync::Arc;

use super::SealSignal;
use crate::{api::paging::Pages, concurrency::bounded::Bounded, db::Db, ids::TenantId};

/// Shows events over gRPC.
pub struct Events {
    /// Postgres.
    pub db: Db,
    /// Begins pages of lists.
    pub pages: Pages,
    /// Signals that events were sealed.
    pub seals: Arc<SealSignal>,
    /// The streams that are open: each asks Postgres now and then.
    pub streams: Arc<Bounded<TenantId>>,
}
