//! Priorities of threads: short calls come first.
//!
//! The scheduler gives a thread of niceness 10 about a tenth of the CPU time of a thread of
//! niceness 0, and a thread of niceness 19 about a seventh of that tenth (`sched(7)`). So
//! decisions, which run at niceness 0, come before the hashing of sign-ins. Sign-ins of all tenants
//! come before one tenant's lists and changes.

/// The niceness of threads that hash passwords.
pub const HASHING: i32 = 10;

/// The niceness of threads that serve long calls.
pub const LONG_CALLS: i32 = 19;

/// Sets the niceness of this thread; on Linux, each thread has its own niceness. A failure is only
/// logged.
pub fn set(niceness: i32) {
    if let Err(error) = rustix::process::setpriority_process(None, niceness) {
        tracing::warn!(%error, niceness, "a thread keeps its normal priority");
    }
}
