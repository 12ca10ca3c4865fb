//! Assignments of roles to users and service accounts.

mod store;

pub use store::{
    AssignmentFilter, AssignmentRow, AssignmentSelector, NewAssignment, delete, insert, list,
    unexpired_assignments,
};
