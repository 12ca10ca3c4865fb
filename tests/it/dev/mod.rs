mod command;
mod services;
