//! The command `tenantry policies`.

use crate::gate::Policies;

/// Prints the policy of every method. Server reflection cannot show policies, because it drops
/// the options of the proto.
pub(super) fn run() -> anyhow::Result<()> {
    for method in Policies::load()?.iter() {
        println!("{:<52} {method}", method.path);
    }
    Ok(())
}
