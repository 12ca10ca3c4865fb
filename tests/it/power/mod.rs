//! Power over others: who gives, takes or uses what another subject holds (N11).

mod email;
mod ends;
mod keys;
mod meanwhile;
mod methods;
mod over_users;
