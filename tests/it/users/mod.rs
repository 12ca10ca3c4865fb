mod bcrypt;
mod create;
mod list;
mod state;
mod update;
