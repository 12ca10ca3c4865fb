//! `tenantry policies`

use crate::gate::{Access, Policies};

/// Prints every method with who may call it. Reflection can't show it: it drops
/// the proto's options.
pub(super) fn run() -> anyhow::Result<()> {
    for method in Policies::load()?.iter() {
        let limit = method.limit.map(|class| format!("; limited as {}", class.name()));
        let limit = limit.unwrap_or_default();
        println!("{:<52} {}{limit}", method.path, describe(&method.access));
    }
    Ok(())
}

fn describe(access: &Access) -> String {
    match access {
        Access::Public => "public".into(),
        Access::Authenticated => "authenticated".into(),
        Access::Permission { permissions, self_allowed, platform_only } => {
            let own = if *self_allowed { ", or for one's own" } else { "" };
            let platform = if *platform_only { ", in the platform tenant" } else { "" };
            format!("{}{own}{platform}", permissions.join(" + "))
        }
    }
}
