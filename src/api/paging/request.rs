//! The request types of lists, and the fields that a page token is bound to.

use prost::Message;

use crate::proto::v1::{
    ApiKey, AuditEvent, ListApiKeysRequest, ListEventsRequest, ListPermissionsRequest,
    ListRoleAssignmentsRequest, ListRolesRequest, ListServiceAccountsRequest, ListSessionsRequest,
    ListSubjectsRequest, ListTenantsRequest, ListUsersRequest, PermissionGrant, Role,
    RoleAssignment, ServiceAccount, Session, Subject, Tenant, User,
};

/// A request for a page of a list.
pub trait ListRequest: Message + Clone + Default {
    /// The type of the list's items.
    type Item: Message;
    /// The name of the request type, which identifies the method.
    const REQUEST_TYPE: &'static str;

    /// The `page_size` and `page_token` of the request.
    fn page(&self) -> (i32, &str);

    /// The request without `page_size` and `page_token`.
    #[must_use]
    fn without_page(&self) -> Self;
}

macro_rules! list_requests {
    ($($request:ident => $item:ident),* $(,)?) => {$(
        impl ListRequest for $request {
            type Item = $item;
            const REQUEST_TYPE: &'static str = stringify!($request);

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
