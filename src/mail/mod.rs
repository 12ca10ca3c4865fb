//! Mails.

mod email_changed;
mod link;
pub mod links;
mod mailer;
mod queue;
mod worker;

pub use email_changed::EmailChanged;
pub use link::ResetToken;
pub use mailer::Mailer;
pub use queue::MailSlot;
pub use worker::{Mails, Meant, Request};
