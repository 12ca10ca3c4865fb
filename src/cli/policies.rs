//! `tenantry policies`

use crate::gate::Policies;

/// Prints every method with who may call it. Reflection can't show it: it drops
/// the proto's options.
pub(super) fn run() -> anyhow::Result<()> {
    for method in Policies::load()?.iter() {
        println!("{:<52} {method}", method.path);
    }
    Ok(())
}
