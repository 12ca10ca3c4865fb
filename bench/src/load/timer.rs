//! Timer with a precision of some microseconds. Tokio's own timer has a precision of one
//! millisecond.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// The timer fires this long before the due moment, because a thread takes time to wake. The
/// rest of the time is spent reading the clock in a loop.
const SPIN: Duration = Duration::from_micros(50);

/// Timer that leaves the core to other tasks while it waits.
pub(super) struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// # Errors
    /// Returns an error when the system has no timer left.
    pub(super) fn new() -> anyhow::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(deprecated, reason = "an owned descriptor stays the one that it is")]
        let timer = AsyncFd::new(timer)?;
        Ok(Self(timer))
    }

    /// Waits until the moment `due`.
    ///
    /// # Errors
    /// Returns an error when the system refuses to set the timer.
    pub(super) async fn until(&self, due: Instant) -> anyhow::Result<()> {
        let left = due.saturating_duration_since(Instant::now());
        if let Some(slept) = left.checked_sub(SPIN).filter(|slept| !slept.is_zero()) {
            let once = Itimerspec {
                it_interval: Timespec::default(),
                it_value: Timespec::try_from(slept)?,
            };
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
            let mut ended = self.0.readable().await?;
            // The next `settime` makes the descriptor unreadable again.
            ended.clear_ready();
        }
        while Instant::now() < due {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}
