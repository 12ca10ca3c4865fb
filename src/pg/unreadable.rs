//! Rows that hold what this program can't read, as nothing that it wrote does. Each
//! counts as not there, and is told to operators: by a log line with its ids, and by
//! `tenantry_unreadable_rows_total`.

use std::sync::LazyLock;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use uuid::Uuid;

use crate::ids::TenantId;

/// What a row is of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "labels are spelled as these are")]
pub enum Of {
    /// An assignment's scope.
    role_assignment,
    /// A tenant's settings.
    tenant,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Label {
    table: Of,
}

/// One for the process: rows are read where no part of the server is at hand.
static ROWS: LazyLock<Family<Label, Counter>> = LazyLock::new(Family::default);

/// Offers the counter.
pub fn register(registry: &mut Registry) {
    let help = "Rows that were read and hold what can't be";
    registry.register("tenantry_unreadable_rows", help, ROWS.clone());
    for table in [Of::role_assignment, Of::tenant] {
        drop(ROWS.get_or_create(&Label { table }));
    }
}

/// Notes that a row can't be read.
pub fn note(table: Of, tenant: TenantId, row: Uuid) {
    ROWS.get_or_create(&Label { table }).inc();
    tracing::error!(%tenant, ?table, %row, "a row can't be read, and counts as not there");
}
