//! The outbox of mails: crashes, replicas, bounds.

mod outbox;
