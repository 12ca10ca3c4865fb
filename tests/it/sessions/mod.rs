mod cache;
mod end_on_all_replicas;
mod revoke;
mod state_and_times;
