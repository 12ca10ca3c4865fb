//! The outbox of mails: crashes, replicas, bounds; and the addresses of mails.

mod addresses;
mod outbox;
