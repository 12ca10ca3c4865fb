//! Mails that wait to be written, of one kind. Each has a slot, which is had before what
//! the mail is about is done.

use std::sync::Arc;

use async_channel::{Receiver, Sender};

use crate::{
    concurrency::bounded::{BoundedPermit, BoundedPermits},
    error::{Error, Result},
    ids::TenantId,
    proto::v1::ErrorReason,
};

/// Mails of a kind that wait, and those of one tenant; more are refused.
const WAITING: usize = 1000;
const WAITING_OF_TENANT: usize = WAITING / 8;

/// Mails that wait.
pub(super) struct Queue<T> {
    sender: Sender<Waiting<T>>,
    slots: Arc<BoundedPermits<TenantId>>,
}

/// A slot for a mail.
pub struct MailSlot {
    _open: BoundedPermit<TenantId>,
}

/// A mail that waits, in its slot until it is worked on.
pub(super) struct Waiting<T> {
    pub mail: T,
    _slot: MailSlot,
}

impl<T> Queue<T> {
    pub(super) fn new() -> (Self, Receiver<Waiting<T>>) {
        // Slots bound it.
        let (sender, receiver) = async_channel::unbounded();
        (Self { sender, slots: BoundedPermits::new(WAITING, WAITING_OF_TENANT) }, receiver)
    }

    /// A slot for a mail of a tenant's.
    ///
    /// # Errors
    /// `OVERLOADED` when as many wait as may.
    pub(super) fn slot(&self, tenant: TenantId) -> Result<MailSlot> {
        let open = self.slots.open(tenant).map_err(|_| full())?;
        Ok(MailSlot { _open: open })
    }

    /// Puts a mail in its slot.
    ///
    /// # Errors
    /// `OVERLOADED` when the server has stopped.
    pub(super) fn put(&self, slot: MailSlot, mail: T) -> Result<()> {
        self.sender.try_send(Waiting { mail, _slot: slot }).map_err(|_| full())
    }

    /// Takes no more.
    pub(super) fn close(&self) {
        self.sender.close();
    }
}

fn full() -> Error {
    Error::refused(ErrorReason::Overloaded, "too many mails wait; try again")
}
