mod assign;
mod create;
mod delete;
mod last_admin;
mod list;
mod retries;
mod unassign;
mod update;
