//! The access policy of each method, read from the options in the proto files.

use std::{collections::HashMap, fmt};

use anyhow::{Context, bail, ensure};
use foldhash::fast::RandomState;
use prost::Message;
use prost_reflect::{DescriptorPool, MethodDescriptor, Value};

use super::Reach;
use crate::{
    ids::SubjectId,
    limits::RateClass,
    permissions::Standing,
    proto::{self, v1},
};

/// The package whose methods must all declare a policy.
const PACKAGE: &str = "tenantry.v1";

/// The name of the proto option with the policy of a method.
const OPTION: &str = "tenantry.v1.policy";

/// Envoy's external authorization method. The proto of the method belongs to Envoy and can't
/// declare a policy, so this file defines the policy. The method is public, because the token to
/// check is in the request.
pub const ENVOY_CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Whether a path belongs to a method of this service, and not to a service that a library
/// provides.
pub(super) fn is_own_method(path: &str) -> bool {
    path == ENVOY_CHECK || path.strip_prefix('/').is_some_and(|path| path.starts_with(PACKAGE))
}

/// Public services of other packages: health probes and reflection.
const PUBLIC_SERVICES: &[&str] = &[
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// Methods that other services call on each of their own requests, thousands of times per
/// second.
const FREQUENT_METHODS: &[&str] = &[
    ENVOY_CHECK,
    "/tenantry.v1.AuthService/IntrospectToken",
    "/tenantry.v1.PermissionService/BatchCheck",
    "/tenantry.v1.PermissionService/Check",
    "/tenantry.v1.PermissionService/ListPermissions",
];

/// The callers that may call a method.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Access {
    /// Every client, without a token.
    Public,
    /// Every caller with a valid access token.
    Authenticated,
    /// Each caller that holds all these permissions.
    Permission {
        /// The permissions that the caller must hold in a role assignment without a scope.
        permissions: Vec<String>,
        /// Whether a caller without the permissions is admitted for the caller's own data.
        self_allowed: bool,
        /// Whether the permissions are valid only for callers of the platform tenant.
        platform_only: bool,
    },
}

impl Access {
    /// The subjects whose data a subject with this standing may access with the method. `None` when
    /// the subject may not call the method, or when the method requires no permission.
    #[must_use]
    pub fn reach(&self, subject: SubjectId, standing: &Standing) -> Option<Reach> {
        let Self::Permission { permissions, self_allowed, platform_only } = self else {
            return None;
        };
        let is_valid_in_tenant = standing.tenant.get().is_platform || !platform_only;
        if is_valid_in_tenant && permissions.iter().all(|permission| standing.holds(permission)) {
            return Some(Reach::Tenant);
        }
        self_allowed.then_some(Reach::Own(subject))
    }

    /// The permissions that a caller must hold; empty when the method requires none.
    #[must_use]
    pub fn permissions(&self) -> &[String] {
        match self {
            Self::Permission { permissions, .. } => permissions,
            Self::Public | Self::Authenticated => &[],
        }
    }
}

/// Whether a call of the method may take long: methods that list or change resources. All methods
/// of AuthService are short. In PermissionService, only the methods that list are long.
fn is_long(service: &str, method: &str) -> bool {
    match service {
        "AuthService" => false,
        "PermissionService" => method.starts_with("List"),
        _ => true,
    }
}

/// The effect of a method on the permissions of other subjects. Each method that changes something
/// declares this effect. The method's transaction admits the caller again and applies the rule for
/// power.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Power {
    /// The permissions of other subjects do not change.
    Nothing,
    /// Another subject has more permissions afterwards.
    Gives,
    /// Another subject has fewer permissions afterwards, or is signed out.
    Takes,
    /// The caller can act as another subject afterwards.
    Uses,
}

/// A method and its policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MethodPolicy {
    /// The request's path: `/package.Service/Method`.
    pub path: String,
    /// The index of the method in the call metrics, from 0.
    pub index: usize,
    /// The callers that may call the method.
    pub access: Access,
    /// The rate limit class that counts the calls; `None` when the calls are not limited.
    pub limit: Option<RateClass>,
    /// The effect of the method on the permissions of other subjects; `None` for a method that only
    /// reads.
    pub power: Option<Power>,
    /// Whether the method is a stream. The caller is admitted again while the stream is open.
    pub is_stream: bool,
    /// Whether other services call the method on each of their own requests. Successful calls of
    /// such a method are not logged.
    pub is_frequent: bool,
    /// Whether a call may take long, because the method lists or changes resources. Long calls do
    /// not run on the threads of decisions and sign-ins.
    pub is_long: bool,
}

impl MethodPolicy {
    /// The method's name: `package.Service/Method`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.trim_start_matches('/')
    }
}

/// The policy as text, for `tenantry policies`.
impl fmt::Display for MethodPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.access {
            Access::Public => f.write_str("public")?,
            Access::Authenticated => f.write_str("authenticated")?,
            Access::Permission { permissions, self_allowed, platform_only } => {
                let self_text = if *self_allowed { ", or for one's own" } else { "" };
                let platform_text = if *platform_only { ", in the platform tenant" } else { "" };
                write!(f, "{}{self_text}{platform_text}", permissions.join(" + "))?;
            }
        }
        if let Some(class) = self.limit {
            write!(f, "; limited as {}", class.name())?;
        }
        match self.power {
            Some(Power::Gives) => f.write_str("; gives power"),
            Some(Power::Takes) => f.write_str("; takes power"),
            Some(Power::Uses) => f.write_str("; uses power"),
            Some(Power::Nothing) | None => Ok(()),
        }
    }
}

/// The policies of all methods.
#[derive(Debug)]
pub struct Policies {
    methods: HashMap<String, MethodPolicy, RandomState>,
}

impl Policies {
    /// Reads the policies from the descriptors that are built into this binary.
    ///
    /// # Errors
    /// Returns an error when a method has no policy or an inconsistent policy.
    pub fn load() -> anyhow::Result<Self> {
        Self::from_descriptors(proto::DESCRIPTORS)
    }

    /// Reads the policies from an encoded `FileDescriptorSet`. The bytes must come directly from
    /// the compiler, because prost drops custom options when it decodes and encodes a descriptor.
    ///
    /// # Errors
    /// Returns an error when a method has no policy or an inconsistent policy.
    pub fn from_descriptors(descriptors: &[u8]) -> anyhow::Result<Self> {
        let pool = DescriptorPool::decode(descriptors).context("unreadable descriptors")?;
        let mut methods = HashMap::default();
        let services = pool.services().filter(|s| s.parent_file().package_name() == PACKAGE);
        for method in services.flat_map(|s| s.methods().collect::<Vec<_>>()) {
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            let policy =
                read_policy(&pool, &method).with_context(|| format!("the policy of {path}"))?;
            let Policy { access, limit, power } = policy;
            let is_stream = method.is_server_streaming();
            let is_frequent = FREQUENT_METHODS.contains(&path.as_str());
            let is_long = !is_stream && is_long(method.parent_service().name(), method.name());
            let method = MethodPolicy {
                path,
                index: methods.len(),
                access,
                limit,
                power,
                is_stream,
                is_frequent,
                is_long,
            };
            methods.insert(method.path.clone(), method);
        }
        ensure!(!methods.is_empty(), "no methods in the descriptors");
        let envoy = MethodPolicy {
            path: ENVOY_CHECK.into(),
            index: methods.len(),
            access: Access::Public,
            limit: None,
            power: None,
            is_stream: false,
            is_frequent: true,
            is_long: false,
        };
        methods.insert(envoy.path.clone(), envoy);
        Ok(Self { methods })
    }

    /// The callers that may call the method with this path; `None` when the method does not exist.
    #[must_use]
    pub fn access_of(&self, path: &str) -> Option<&Access> {
        let access = self.method(path).map(|method| &method.access);
        access.or_else(|| is_public_service(path).then_some(&Access::Public))
    }

    /// The policy of the method with this path; `None` when the method does not belong to this
    /// service.
    #[must_use]
    pub fn method(&self, path: &str) -> Option<&MethodPolicy> {
        self.methods.get(path)
    }

    /// The names of all methods, `package.Service/Method`, ordered by [`MethodPolicy::index`].
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut methods: Vec<_> = self.methods.values().collect();
        methods.sort_unstable_by_key(|method| method.index);
        methods.into_iter().map(MethodPolicy::name).collect()
    }

    /// All methods with their policies, sorted by path.
    pub fn iter(&self) -> impl Iterator<Item = &MethodPolicy> {
        let mut methods: Vec<_> = self.methods.values().collect();
        methods.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        methods.into_iter()
    }
}

/// Whether a path belongs to a public service of another package.
pub(super) fn is_public_service(path: &str) -> bool {
    let service = path.strip_prefix('/').and_then(|path| path.split('/').next());
    service.is_some_and(|service| PUBLIC_SERVICES.contains(&service))
}

/// The parsed policy option of a method.
#[derive(PartialEq, Eq, Debug)]
struct Policy {
    access: Access,
    limit: Option<RateClass>,
    power: Option<Power>,
}

fn read_policy(pool: &DescriptorPool, method: &MethodDescriptor) -> anyhow::Result<Policy> {
    let option = pool.get_extension_by_name(OPTION).context("the option is not declared")?;
    let options = method.options();
    ensure!(options.has_extension(&option), "is missing");
    let value = options.get_extension(&option);
    let Value::Message(message) = value.as_ref() else { bail!("is no message") };
    // Converts the dynamic message into the generated type.
    let policy = v1::Policy::decode(message.encode_to_vec().as_slice())?;
    checked_policy(policy, is_read_only(method.name()))
}

/// The verbs with which the names of read-only methods begin.
const READ_VERBS: &[&str] =
    &["BatchCheck", "Check", "Get", "Introspect", "List", "Lookup", "Watch", "WhoAmI"];

fn is_read_only(method: &str) -> bool {
    READ_VERBS.iter().any(|verb| {
        let rest = method.strip_prefix(verb);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_uppercase))
    })
}

/// Converts a declared policy. Fails when the policy is incomplete or contradictory.
fn checked_policy(policy: v1::Policy, is_read_only: bool) -> anyhow::Result<Policy> {
    let limit = v1::Limit::try_from(policy.limit).context("has an unknown limit")?;
    let power = checked_power(&policy, is_read_only)?;
    let access = checked_access(policy)?;
    let lacks_limit = access == Access::Public && limit == v1::Limit::Unspecified;
    ensure!(!lacks_limit, "must declare the limit of a public method (LIMIT_NONE for no limit)");
    let has_permissions = matches!(access, Access::Permission { .. });
    let has_power = power.is_some_and(|power| power != Power::Nothing);
    ensure!(has_permissions || !has_power, "only ACCESS_PERMISSION may have power over others");
    Ok(Policy { access, limit: RateClass::of(limit), power })
}

fn checked_power(policy: &v1::Policy, is_read_only: bool) -> anyhow::Result<Option<Power>> {
    let declared_power = v1::Power::try_from(policy.power).context("has an unknown power")?;
    if is_read_only {
        ensure!(
            declared_power == v1::Power::Unspecified,
            "declares power, but the method's name is that of a read-only method"
        );
        return Ok(None);
    }
    match declared_power {
        v1::Power::Unspecified => bail!("must declare the effect on the power of others"),
        v1::Power::None => Ok(Some(Power::Nothing)),
        v1::Power::Gives => Ok(Some(Power::Gives)),
        v1::Power::Takes => Ok(Some(Power::Takes)),
        v1::Power::Uses => Ok(Some(Power::Uses)),
    }
}

fn checked_access(policy: v1::Policy) -> anyhow::Result<Access> {
    let has_no_permission_fields =
        policy.permissions.is_empty() && !policy.self_allowed && !policy.platform_only;
    match policy.access() {
        v1::Access::Public if has_no_permission_fields => Ok(Access::Public),
        v1::Access::Authenticated if has_no_permission_fields => Ok(Access::Authenticated),
        v1::Access::Permission => {
            ensure!(!policy.permissions.is_empty(), "lists no permission");
            Ok(Access::Permission {
                permissions: policy.permissions,
                self_allowed: policy.self_allowed,
                platform_only: policy.platform_only,
            })
        }
        v1::Access::Unspecified => bail!("declares no access"),
        _ => bail!("has fields that only ACCESS_PERMISSION may have"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_or_contradictory_policy_is_refused() {
        let is_read_only = true;
        let check = |policy| checked_policy(policy, is_read_only);
        let without_limit = v1::Policy { access: v1::Access::Public.into(), ..Default::default() };
        assert!(check(without_limit.clone()).is_err(), "a public method without a limit");
        let public = v1::Policy { limit: v1::Limit::SignIn.into(), ..without_limit };
        let expected =
            Policy { access: Access::Public, limit: Some(RateClass::SignIn), power: None };
        assert_eq!(check(public.clone()).ok(), Some(expected));
        assert!(check(v1::Policy { limit: 99, ..public.clone() }).is_err(), "an unknown limit");
        let contradictory = v1::Policy { permissions: vec!["user:read".into()], ..public };
        assert!(check(contradictory).is_err(), "a public method with a permission");
        assert!(check(v1::Policy::default()).is_err(), "a policy without a declaration");
        let without_permission =
            v1::Policy { access: v1::Access::Permission.into(), ..Default::default() };
        assert!(check(without_permission).is_err(), "access by permission without a permission");
    }

    /// N11: each method that changes something declares its effect on other subjects.
    #[test]
    fn a_method_that_changes_something_must_declare_its_power() {
        for name in ["Get", "GetUser", "ListUsers", "WhoAmI", "BatchCheck", "WatchEvents"] {
            assert!(is_read_only(name), "{name}");
        }
        // "Getaway", "Listen" and "Checkout" begin with the letters of a read verb, but not with
        // the verb as a word.
        for name in ["CreateUser", "Getaway", "Listen", "Checkout", "UpdateUser", "Login"] {
            assert!(!is_read_only(name), "{name}");
        }
        let policy = |access: v1::Access, power: v1::Power| v1::Policy {
            access: access.into(),
            permissions: match access {
                v1::Access::Permission => vec!["user:update".into()],
                _ => Vec::new(),
            },
            power: power.into(),
            ..v1::Policy::default()
        };
        let with_power = |power| policy(v1::Access::Permission, power);
        // The second argument of `checked_policy` says whether the method is read-only.
        assert!(
            checked_policy(with_power(v1::Power::Unspecified), false).is_err(),
            "a policy without a declaration"
        );
        assert!(
            checked_policy(with_power(v1::Power::None), false)
                .is_ok_and(|policy| policy.power == Some(Power::Nothing))
        );
        let gives =
            checked_policy(with_power(v1::Power::Gives), false).expect("the policy is valid");
        assert_eq!(gives.power, Some(Power::Gives));
        let read_only = checked_policy(with_power(v1::Power::Takes), true);
        assert!(read_only.is_err(), "a read-only method with power");
        let without_permission = policy(v1::Access::Authenticated, v1::Power::Takes);
        assert!(
            checked_policy(without_permission, false).is_err(),
            "a method with power that requires no permission"
        );
    }

    #[test]
    fn unknown_paths_have_no_policy() {
        let policies = Policies::load().expect("the built-in policies are valid");
        for path in ["", "/", "/tenantry.v1.UserService", "/tenantry.v1.UserService/Nothing"] {
            assert_eq!(policies.access_of(path), None, "{path}");
        }
        assert_eq!(policies.access_of("/grpc.health.v1.Health/Check"), Some(&Access::Public));
    }
}
