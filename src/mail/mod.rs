//! Mails: an outbox in Postgres, a worker that sends them by SMTP, and the links in them.
//!
//! A mail is queued in the transaction of the change that the mail reports. A mail may be sent more
//! than once, but always with the same `Message-ID`. Each replica runs the worker. Only one replica
//! at a time handles a row of the outbox.

mod address_proof;
mod email_changed;
mod kind;
mod link;
mod link_request;
mod mailer;
mod outbox;
mod store;
mod text;
mod worker;

pub use link::{Link, Purpose};
pub use outbox::{AddressProof, EmailChanged, LinkRequest, RequestedTenants};
pub use store::{end_link, find_link, set_link};
pub use worker::MailQueue;
