//! What reads text from outside takes whatever comes: a precise answer, and no harm.

mod inputs;
mod targets;
