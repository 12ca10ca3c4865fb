//! Timer with a precision of a few microseconds. Tokio's own timer has a precision of one
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

/// The kernel timer fires this long before the due time, because a thread needs time to wake up.
/// After the wake-up, a loop reads the clock until the due time.
const SPIN: Duration = Duration::from_micros(50);

/// Timer that leaves the core to other tasks while it waits.
pub(super) struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// Creates a timer.
    ///
    /// # Errors
    /// Returns an error when the system has no timer left.
    pub(super) fn new() -> anyhow::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(deprecated, reason = "an owned descriptor does not change")]
        let timer = AsyncFd::new(timer)?;
        Ok(Self(timer))
    }

    /// Waits until `due`.
    ///
    /// # Errors
    /// Returns an error when the system refuses to set the timer.
    pub(super) async fn wait_until(&self, due: Instant) -> anyhow::Result<()> {
        let remaining = due.saturating_duration_since(Instant::now());
        if let Some(sleep_time) =
            remaining.checked_sub(SPIN).filter(|sleep_time| !sleep_time.is_zero())
        {
            let setting = Itimerspec {
                it_interval: Timespec::default(),
                it_value: Timespec::try_from(sleep_time)?,
            };
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &setting)?;
            let mut readiness = self.0.readable().await?;
            // The next `settime` makes the descriptor unreadable again.
            readiness.clear_ready();
        }
        while Instant::now() < due {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}
