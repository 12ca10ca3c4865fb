mod commits;
mod replicas;
