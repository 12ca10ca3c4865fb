//! Mails: an outbox in Postgres, a worker that sends them by SMTP, and the links in them.
//!
//! A mail is queued in the transaction of the change that the mail reports. A mail may be sent more
//! than once, but always with the same `Message-ID`. Each replica runs the worker. Only one replica
//! at a time handles a row of the outbox.

mod email_changed;
mod kind;
mod link;
mod mailer;
mod outbox;
mod password_reset;
mod store;
mod worker;

pub use link::{Link, Purpose};
pub use outbox::{EmailChanged, RequestedTenants, ResetRequest};
pub use store::is_valid_link;
pub use worker::MailQueue;
