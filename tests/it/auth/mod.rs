mod lifetime;
mod login;
mod refresh;
mod refresh_faults;
