//! The rule for power over others: giving, taking or using the rights of another subject (N11).

mod email;
mod expiry;
mod keys;
mod lock_waits;
mod methods;
mod over_users;
