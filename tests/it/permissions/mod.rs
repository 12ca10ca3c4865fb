mod batch_check;
mod by_token;
mod check;
mod list_permissions;
mod matrix;
mod random;
mod scope;
