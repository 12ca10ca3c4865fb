//! `ListPermissions`: pages of the permissions that a subject holds, ordered by permission, then by
//! role name, then by the digest of the scope.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use super::{
    Permissions, Standing,
    assigned_scope::{AssignedScope, DIGEST_BYTES},
    standing::Role,
};
use crate::{
    api::paging::{ENVELOPE_BYTES, MAX_REPLY_BYTES, MAX_SIZE, PageCaller, encoded_bytes},
    concurrency::pace::Pace,
    error::Result,
    proto::v1::{ListPermissionsRequest, PermissionGrant},
};

/// The digest of a scope; all zeros for an assignment without a scope.
type ScopeDigest = [u8; DIGEST_BYTES];

impl Permissions {
    /// A page of the permissions that a subject holds, and the token of the next page.
    pub(super) async fn held_permissions_page(
        &self,
        caller: PageCaller,
        request: &ListPermissionsRequest,
        standing: Option<&Standing>,
    ) -> Result<(Vec<PermissionGrant>, String)> {
        let after = self.pages.previous_position(caller, request, Position::decode)?;
        let Some(standing) = standing else { return Ok((Vec::new(), String::new())) };
        let size = match usize::try_from(request.page_size).unwrap_or_default() {
            0 => MAX_SIZE,
            size => size.min(MAX_SIZE),
        };
        let (page, last_position) = page_after(standing, after.as_ref(), size).await;
        let token =
            last_position.map(|position| self.pages.token(caller, request, position.encode()));
        Ok((page, token.transpose()?.unwrap_or_default()))
    }
}

/// The position of a page's last grant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Position {
    permission: String,
    role_name: String,
    scope_digest: ScopeDigest,
}

impl Position {
    /// Encodes the digest of the scope, the permission's length, the permission and the role's
    /// name.
    fn encode(&self) -> Vec<u8> {
        let length = u16::try_from(self.permission.len()).unwrap_or(u16::MAX);
        [
            &self.scope_digest[..],
            &length.to_be_bytes(),
            self.permission.as_bytes(),
            self.role_name.as_bytes(),
        ]
        .concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (scope_digest, rest) = bytes.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (permission, role_name) =
            rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let to_text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let (permission, role_name) = (to_text(permission)?, to_text(role_name)?);
        Some(Self { permission, role_name, scope_digest: *scope_digest })
    }
}

/// A role of the subject, and the scopes in which the subject has it.
struct RoleScopes<'a> {
    role: &'a Role,
    scopes: Vec<(ScopeDigest, Option<&'a AssignedScope>)>,
}

/// The grants after a position, as many as fit into the page, and the position of the last grant if
/// more grants follow. Merges the sorted permission lists of the roles: the heap has the next
/// permission of each role.
async fn page_after(
    standing: &Standing,
    after: Option<&Position>,
    size: usize,
) -> (Vec<PermissionGrant>, Option<Position>) {
    let mut pace = Pace::new();
    let roles = scopes_by_role(standing, &mut pace).await;
    let mut heap: BinaryHeap<_> = roles
        .iter()
        .enumerate()
        .filter_map(|(role_index, role_scopes)| {
            let permissions = role_scopes.role.permissions.as_sorted_slice();
            let permission_index = after.map_or(0, |after| {
                permissions.partition_point(|permission| **permission < *after.permission)
            });
            Some(Reverse((
                &**permissions.get(permission_index)?,
                role_scopes.role.name.as_str(),
                role_index,
                permission_index,
            )))
        })
        .collect();
    let (mut grants, mut bytes, mut last_position) = (Vec::new(), ENVELOPE_BYTES, None);
    while let Some(Reverse((permission, role_name, role_index, permission_index))) = heap.pop() {
        let role_scopes = &roles[role_index];
        for (scope_digest, scope) in &role_scopes.scopes {
            let grant_position = (permission, role_name, scope_digest);
            let is_on_earlier_page = |after: &Position| {
                let Position { permission, role_name, scope_digest } = after;
                let after_position = (permission.as_str(), role_name.as_str(), scope_digest);
                grant_position <= after_position
            };
            if after.is_some_and(is_on_earlier_page) {
                continue;
            }
            let grant = PermissionGrant {
                permission: permission.to_owned(),
                scope: scope.map(AssignedScope::to_struct),
                role_name: role_name.to_owned(),
            };
            let grant_bytes = encoded_bytes(&grant);
            // A page has at least one grant, even if that grant alone exceeds the maximum size.
            if grants.len() == size || bytes + grant_bytes > MAX_REPLY_BYTES && !grants.is_empty() {
                return (grants, last_position);
            }
            bytes += grant_bytes;
            grants.push(grant);
            let (permission, role_name) = (permission.to_owned(), role_name.to_owned());
            last_position = Some(Position { permission, role_name, scope_digest: *scope_digest });
            pace.pause().await;
        }
        let next_index = permission_index + 1;
        if let Some(permission) = role_scopes.role.permissions.as_sorted_slice().get(next_index) {
            heap.push(Reverse((&**permission, role_name, role_index, next_index)));
        }
    }
    (grants, None)
}

/// The subject's roles, each with the scopes of its assignments, sorted by the digests.
async fn scopes_by_role<'a>(standing: &'a Standing, pace: &mut Pace) -> Vec<RoleScopes<'a>> {
    let mut by_role_id: HashMap<_, RoleScopes<'a>> = HashMap::new();
    for grant in standing.unexpired_grants() {
        let (role, scope) = (grant.role.get(), grant.scope());
        let scope_digest = scope.map_or([0; DIGEST_BYTES], AssignedScope::digest);
        let role_scopes =
            by_role_id.entry(role.id).or_insert_with(|| RoleScopes { role, scopes: Vec::new() });
        role_scopes.scopes.push((scope_digest, scope));
        pace.pause().await;
    }
    let mut roles: Vec<_> = by_role_id.into_values().collect();
    for role_scopes in &mut roles {
        role_scopes.scopes.sort_unstable_by_key(|(scope_digest, _)| *scope_digest);
    }
    roles
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::permissions::{
        compiled::{Invalidatable, PermissionSet},
        standing::{Grant, Tenant, UserStanding},
    };

    fn role(id: u128, permissions: &[&str]) -> Arc<Invalidatable<Role>> {
        let permissions = permissions.iter().map(|text| (*text).to_owned()).collect();
        let (permissions, name) = (PermissionSet::compile(permissions), format!("role {id}"));
        Arc::new(Invalidatable::new(Role { id: Uuid::from_u128(id), name, level: 1, permissions }))
    }

    /// A subject with 15 grants: five permissions in three roles, each permission without a scope
    /// and in two scopes of this size.
    fn standing(scope_bytes: usize) -> Standing {
        let roles = [role(1, &["a:b", "c:d", "a:a"]), role(2, &["c:d", "*:x"]), role(3, &[])];
        let grants = roles.iter().flat_map(|role| {
            let scope = |n| json!({ "n": n, "text": "x".repeat(scope_bytes) }).as_object().cloned();
            let scopes = [None, scope(1), scope(2)];
            scopes.map(|scope| Grant::new(role.clone(), scope, None))
        });
        let slug = String::new();
        let tenant =
            Tenant { slug, active: true, is_platform: false, accepts_api_key_bearer: false };
        let (tenant, grants) = (Arc::new(Invalidatable::new(tenant)), grants.collect());
        Standing { tenant, user: UserStanding::Active, grants, weight: 0 }
    }

    async fn all_pages(standing: &Standing, size: usize) -> Vec<Vec<PermissionGrant>> {
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let (grants, last_position) = page_after(standing, after.as_ref(), size).await;
            pages.push(grants);
            let Some(position) = last_position else { return pages };
            assert_eq!(Position::decode(&position.encode()), Some(position.clone()));
            after = Some(position);
        }
    }

    /// N21: the pages together have each grant exactly once, for each page size.
    #[tokio::test]
    async fn pages_of_any_size_together_are_the_whole_list() {
        let standing = standing(0);
        let whole = all_pages(&standing, 1000).await.concat();
        assert_eq!(whole.len(), 15);
        let names: Vec<_> =
            whole.iter().map(|grant| (&grant.permission, &grant.role_name)).collect();
        assert!(names.is_sorted(), "{names:?}");
        assert_eq!(whole[0].scope, None, "a grant without a scope comes first");
        for size in 1..20 {
            let pages = all_pages(&standing, size).await;
            assert_eq!(pages.concat(), whole, "{size}");
            assert_eq!(pages.len(), 15_usize.div_ceil(size), "{size}");
        }
    }

    /// N21: a page never exceeds the maximum size of a reply.
    #[tokio::test]
    async fn a_page_ends_before_it_exceeds_the_maximum_bytes() {
        let pages = all_pages(&standing(1_000_000), 1000).await;
        assert_eq!(pages.concat().len(), 15);
        // The ten grants with a scope have 1 MB each. A page of 3 MiB has at most three of them.
        assert!(pages.len() > 3, "{}", pages.len());
        for page in pages {
            assert!(page.iter().map(encoded_bytes).sum::<usize>() <= MAX_REPLY_BYTES);
        }
    }
}
