//! How calls share the machine: counted permits, fair shares of tenants, yields of long work,
//! deadlines, priorities of threads.

pub mod bounded;
pub mod deadline;
pub mod fair_permits;
pub mod pace;
pub mod priority;
