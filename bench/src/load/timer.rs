//! A timer that is exact to some microseconds. tokio's own is exact to a millisecond.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// How long before the moment the timer ends, for a thread takes time to wake. The rest is
/// spent watching the clock.
const SPIN: Duration = Duration::from_micros(50);

/// Leaves the core to others while it waits.
pub(super) struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// # Errors
    /// When the system has no timer left.
    pub(super) fn new() -> anyhow::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(deprecated, reason = "an owned descriptor stays the one that it is")]
        let timer = AsyncFd::new(timer)?;
        Ok(Self(timer))
    }

    /// Waits until a moment.
    ///
    /// # Errors
    /// When the system refuses to set the timer.
    pub(super) async fn until(&self, due: Instant) -> anyhow::Result<()> {
        let left = due.saturating_duration_since(Instant::now());
        if let Some(slept) = left.checked_sub(SPIN).filter(|slept| !slept.is_zero()) {
            let once = Itimerspec {
                it_interval: Timespec::default(),
                it_value: Timespec::try_from(slept)?,
            };
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
            let mut ended = self.0.readable().await?;
            // Setting it again makes it unreadable.
            ended.clear_ready();
        }
        while Instant::now() < due {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}
