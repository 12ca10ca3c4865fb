//! What all RPCs share, after Google's API Improvement Proposals: pages (AIP-158), filters
//! (AIP-160), update masks and etags (AIP-134, AIP-154), request ids (AIP-155), and the
//! bounds and canonical forms of stored fields.

pub mod bounds;
pub mod filter;
pub mod idempotency;
pub mod names;
pub mod paging;
pub mod update_mask;
