//! PermissionService. Several tests compare its decisions with independent models.

mod batch_check;
mod by_token;
mod check;
mod explain;
mod list_permissions;
mod list_subjects;
mod matrix;
mod model;
mod numbers;
mod queries;
mod random;
mod scope;
mod sequences;
mod similar_checks;
mod unreadable_rows;
