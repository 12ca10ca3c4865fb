//! The whole engine once more, as naively as it can be said: lists that are
//! searched from end to end, and words that are compared.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

pub type Scope = Map<String, Value>;

/// A tenant.
#[derive(Default)]
pub struct Model {
    pub suspended: bool,
    /// Whether each user is disabled, by id.
    pub users: BTreeMap<String, bool>,
    /// Each role's name and words, by id.
    pub roles: BTreeMap<String, (String, Vec<String>)>,
    pub assignments: Vec<Assignment>,
}

#[derive(Clone)]
pub struct Assignment {
    pub user: String,
    pub role: String,
    pub scope: Scope,
    /// Whether it is for a time.
    pub ends: bool,
    /// Whether that time is over.
    pub over: bool,
}

/// Whether a role's word means what is asked for.
fn means(word: &str, asked: &str) -> bool {
    let parts = |text: &str| -> Vec<String> { text.split(':').map(str::to_owned).collect() };
    parts(word).iter().zip(parts(asked)).all(|(held, wanted)| held == "*" || *held == wanted)
}

/// The one form of a scope: lists sorted by type and value, without doubles, and one of
/// a single value that value.
pub fn one_form(scope: Scope) -> Scope {
    let key = |value: &Value| match value {
        Value::Bool(_) => (0, 0.0, value.to_string()),
        Value::Number(number) => (1, number.as_f64().expect("a number"), String::new()),
        _ => (2, 0.0, value.to_string()),
    };
    let folded = |value: Value| match value {
        Value::Array(mut listed) => {
            listed.sort_by(|a, b| key(a).partial_cmp(&key(b)).expect("an order"));
            listed.dedup();
            if listed.len() == 1 { listed.remove(0) } else { Value::Array(listed) }
        }
        one => one,
    };
    scope.into_iter().map(|(name, value)| (name, folded(value))).collect()
}

/// Whether a scope fits: 1 and "1" differ, a list offers its values.
pub fn fits(assigned: &Scope, requested: &Scope) -> bool {
    assigned.iter().all(|(key, wanted)| {
        let offers = wanted.as_array().cloned().unwrap_or_else(|| vec![wanted.clone()]);
        let given = requested.get(key).map(ToString::to_string);
        offers.iter().any(|offer| Some(offer.to_string()) == given)
    })
}

impl Model {
    /// What a user has now.
    pub fn held(&self, user: &str) -> impl Iterator<Item = &Assignment> {
        self.assignments.iter().filter(move |a| a.user == user && !a.over)
    }

    /// Whether the user may act at all.
    pub fn acts(&self, user: &str) -> bool {
        !self.suspended && self.users.get(user) == Some(&false)
    }

    /// What Check says.
    pub fn allows(&self, user: &str, asked: &str, requested: &Scope) -> bool {
        self.acts(user)
            && self.held(user).any(|a| {
                fits(&a.scope, requested) && self.roles[&a.role].1.iter().any(|w| means(w, asked))
            })
    }

    /// Whom the list of subjects names.
    pub fn subjects(&self, asked: &str, requested: &Scope) -> Vec<String> {
        self.users.keys().filter(|user| self.allows(user, asked, requested)).cloned().collect()
    }

    /// What the list of permissions shows: permission, role, scope.
    pub fn permissions(&self, user: &str) -> Vec<(String, String, Scope)> {
        let mut shown = Vec::new();
        for a in self.held(user).filter(|_| self.acts(user)) {
            let (name, words) = &self.roles[&a.role];
            shown.extend(words.iter().map(|w| (w.clone(), name.clone(), a.scope.clone())));
        }
        shown.sort_by_key(|row| format!("{row:?}"));
        shown
    }

    /// The names of a user's roles, and its permissions everywhere: WhoAmI.
    pub fn who(&self, user: &str) -> (Vec<String>, Vec<String>) {
        let roles: BTreeSet<_> = self.held(user).map(|a| self.roles[&a.role].0.clone()).collect();
        let words: BTreeSet<_> = self
            .held(user)
            .filter(|a| a.scope.is_empty())
            .flat_map(|a| self.roles[&a.role].1.clone())
            .collect();
        (roles.into_iter().collect(), words.into_iter().collect())
    }
}
