mod create;
mod delete;
mod list;
mod read;
mod state;
mod update;
