//! The requests of lists.

use prost::Message;

use crate::proto::v1::{
    ApiKey, AuditEvent, ListApiKeysRequest, ListEventsRequest, ListPermissionsRequest,
    ListRoleAssignmentsRequest, ListRolesRequest, ListServiceAccountsRequest, ListSessionsRequest,
    ListSubjectsRequest, ListTenantsRequest, ListUsersRequest, PermissionGrant, Role,
    RoleAssignment, ServiceAccount, Session, Subject, Tenant, User,
};

/// A request for a page of a list.
pub trait ListRequest: Message + Clone + Default {
    /// What the list is of.
    type Item: Message;
    /// The request's name, which no other method's has.
    const METHOD: &'static str;

    /// Its `page_size` and `page_token`.
    fn page(&self) -> (i32, &str);

    /// All else that it says.
    #[must_use]
    fn without_page(&self) -> Self;
}

macro_rules! list_requests {
    ($($request:ident => $item:ident),* $(,)?) => {$(
        impl ListRequest for $request {
            type Item = $item;
            const METHOD: &'static str = stringify!($request);

            fn page(&self) -> (i32, &str) {
                (self.page_size, &self.page_token)
            }

            fn without_page(&self) -> Self {
                Self { page_size: 0, page_token: String::new(), ..self.clone() }
            }
        }
    )*};
}

list_requests! {
    ListApiKeysRequest => ApiKey,
    ListEventsRequest => AuditEvent,
    ListPermissionsRequest => PermissionGrant,
    ListRoleAssignmentsRequest => RoleAssignment,
    ListRolesRequest => Role,
    ListServiceAccountsRequest => ServiceAccount,
    ListSessionsRequest => Session,
    ListSubjectsRequest => Subject,
    ListTenantsRequest => Tenant,
    ListUsersRequest => User,
}
