//! Priorities of threads: what serves calls comes first.
//!
//! The scheduler gives a thread of niceness 10 about a tenth of what it gives one of
//! niceness 0, and one of 19 a seventh of that (`sched(7)`). So a tenant's lists and changes
//! leave the cores to everybody's sign-ins, and both leave them to decisions.

/// The niceness of threads that hash passwords.
pub const HASHING: i32 = 10;

/// The niceness of threads that serve long calls.
pub const LONG_CALLS: i32 = 19;

/// Sets this thread's niceness: on Linux it is the thread's own. Work goes on without it.
pub fn set(niceness: i32) {
    if let Err(error) = rustix::process::setpriority_process(None, niceness) {
        tracing::warn!(%error, niceness, "a thread keeps its normal priority");
    }
}
