mod commits;
mod delay;
mod replicas;
