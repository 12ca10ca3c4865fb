//! N11: the rule for power over others, which means to give, take or use the rights of another
//! subject.

mod email;
mod expiry;
mod keys;
mod lock_waits;
mod methods;
mod over_users;
