//! The command `tenantry policies`.

use crate::gate::Policies;

/// Prints the policy of every method. Server reflection can't show policies, because it leaves out
/// the options of the proto, which contain the policies.
pub(super) fn run() -> anyhow::Result<()> {
    for method in Policies::load()?.iter() {
        out!("{:<52} {method}", method.path);
    }
    Ok(())
}
