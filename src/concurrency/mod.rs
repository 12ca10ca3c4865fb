//! Sharing of the machine between calls: counted permits, fair shares of tenants, yields of long
//! work, deadlines and thread priorities.

pub mod bounded;
pub mod deadline;
pub mod fair_permits;
pub mod pace;
pub mod priority;
pub mod step;
