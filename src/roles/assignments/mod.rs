//! Assignments of roles to users and service accounts.

mod store;

pub use store::{
    AssignmentFilter, AssignmentRow, NewAssignment, Which, delete, held, insert, list,
};
