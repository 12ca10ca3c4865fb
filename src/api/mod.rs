//! Code that all RPCs share. Pages (AIP-158), filters (AIP-160), update masks and etags (AIP-134,
//! AIP-154) and request ids (AIP-155) follow Google's API Improvement Proposals. `bounds` limits
//! stored data, and `names` normalizes names for comparisons.

pub mod bounds;
pub mod filter;
pub mod idempotency;
pub mod names;
pub mod paging;
pub mod update_mask;
