//! A simple model of the decision engine, with linear searches and string comparisons.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

pub type Scope = Map<String, Value>;

#[derive(Default)]
pub struct Model {
    pub suspended: bool,
    /// For each user id, whether the user is disabled.
    pub users: BTreeMap<String, bool>,
    /// The name (`.0`) and the permissions (`.1`) of each role, by id.
    pub roles: BTreeMap<String, (String, Vec<String>)>,
    pub assignments: Vec<Assignment>,
}

#[derive(Clone)]
pub struct Assignment {
    pub user: String,
    pub role: String,
    pub scope: Scope,
    /// Whether the assignment has an expiry time.
    pub has_expiry: bool,
    /// Whether the assignment has expired.
    pub is_expired: bool,
}

/// Whether a role's permission covers the requested permission.
fn covers(permission: &str, requested_permission: &str) -> bool {
    let parts = |text: &str| -> Vec<String> { text.split(':').map(str::to_owned).collect() };
    parts(permission)
        .iter()
        .zip(parts(requested_permission))
        .all(|(granted, requested)| granted == "*" || *granted == requested)
}

/// Normal form of a scope: lists are sorted by type and value and have no duplicates, and a
/// list of one value becomes that value.
pub fn normal_form(scope: Scope) -> Scope {
    let sort_key = |value: &Value| match value {
        Value::Bool(_) => (0, 0.0, value.to_string()),
        Value::Number(number) => (1, number.as_f64().expect("a number"), String::new()),
        _ => (2, 0.0, value.to_string()),
    };
    let normalized = |value: Value| match value {
        Value::Array(mut values) => {
            values.sort_by(|a, b| sort_key(a).partial_cmp(&sort_key(b)).expect("an order"));
            values.dedup();
            if values.len() == 1 { values.remove(0) } else { Value::Array(values) }
        }
        scalar => scalar,
    };
    scope.into_iter().map(|(name, value)| (name, normalized(value))).collect()
}

/// Whether an assigned scope covers a requested scope. The number 1 and the text "1" differ. A
/// list matches each of its values.
pub fn scope_covers(assigned: &Scope, requested: &Scope) -> bool {
    assigned.iter().all(|(key, assigned_value)| {
        let allowed_values =
            assigned_value.as_array().cloned().unwrap_or_else(|| vec![assigned_value.clone()]);
        let requested_value = requested.get(key).map(ToString::to_string);
        allowed_values
            .iter()
            .any(|allowed_value| Some(allowed_value.to_string()) == requested_value)
    })
}

impl Model {
    /// The assignments of a user that have not expired.
    pub fn unexpired_assignments(&self, user: &str) -> impl Iterator<Item = &Assignment> {
        self.assignments.iter().filter(move |a| a.user == user && !a.is_expired)
    }

    /// Whether the user and its tenant are active.
    pub fn is_active(&self, user: &str) -> bool {
        !self.suspended && self.users.get(user) == Some(&false)
    }

    /// Expected result of Check.
    pub fn allows(&self, user: &str, requested_permission: &str, requested: &Scope) -> bool {
        self.is_active(user)
            && self.unexpired_assignments(user).any(|a| {
                scope_covers(&a.scope, requested)
                    && self.roles[&a.role].1.iter().any(|p| covers(p, requested_permission))
            })
    }

    /// Expected result of `ListSubjects`.
    pub fn subjects(&self, requested_permission: &str, requested: &Scope) -> Vec<String> {
        self.users
            .keys()
            .filter(|user| self.allows(user, requested_permission, requested))
            .cloned()
            .collect()
    }

    /// Expected result of `ListPermissions`: permission, role and scope.
    pub fn permissions(&self, user: &str) -> Vec<(String, String, Scope)> {
        let mut grants = Vec::new();
        for a in self.unexpired_assignments(user).filter(|_| self.is_active(user)) {
            let (name, permissions) = &self.roles[&a.role];
            grants.extend(permissions.iter().map(|p| (p.clone(), name.clone(), a.scope.clone())));
        }
        grants.sort_by_key(|row| format!("{row:?}"));
        grants
    }

    /// Expected roles and unscoped permissions in WhoAmI.
    pub fn who_am_i(&self, user: &str) -> (Vec<String>, Vec<String>) {
        let roles: BTreeSet<_> =
            self.unexpired_assignments(user).map(|a| self.roles[&a.role].0.clone()).collect();
        let permissions: BTreeSet<_> = self
            .unexpired_assignments(user)
            .filter(|a| a.scope.is_empty())
            .flat_map(|a| self.roles[&a.role].1.clone())
            .collect();
        (roles.into_iter().collect(), permissions.into_iter().collect())
    }
}
