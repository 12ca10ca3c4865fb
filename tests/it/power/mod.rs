//! Power over others: giving, taking or using what another subject holds (N11).

mod email;
mod ends;
mod keys;
mod meanwhile;
mod methods;
mod over_users;
