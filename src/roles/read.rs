//! `GetRole`, `ListRoles` and `ListRoleAssignments`.

use super::{
    Roles,
    assignments::{self, AssignmentFilter},
    store::{self, RoleRow},
};
use crate::{
    api::filter::{Field, Filter, Kind},
    error::Result,
    gate::Caller,
    ids::{RoleId, SubjectId},
    proto::v1::{ListRoleAssignmentsRequest, ListRolesRequest, Role, RoleAssignment, RoleLevel},
};

const ROLE_FIELDS: &[Field] = &[
    Field { name: "name", kind: Kind::Text },
    Field {
        name: "level",
        kind: Kind::Enum("ROLE_LEVEL_", |name| RoleLevel::from_str_name(name).map(i32::from)),
    },
];

const ASSIGNMENT_FIELDS: &[Field] = &[Field { name: "role_name", kind: Kind::Text }];

impl Roles {
    pub(super) async fn get(&self, caller: &Caller, role: RoleId) -> Result<RoleRow> {
        let mut tx = self.db.begin(caller.tenant()).await?;
        store::get(&mut tx, caller.tenant(), role).await
    }

    /// A page of roles and the token of the next page.
    pub(super) async fn list(
        &self,
        caller: &Caller,
        message: &ListRolesRequest,
    ) -> Result<(Vec<Role>, String)> {
        let filter = Filter::parse(&message.filter, ROLE_FIELDS)?;
        let level = filter.enum_value("level").map(|level: RoleLevel| level as i16);
        let mut page = self.pages.begin(caller.page_caller(), message)?;
        let mut tx = self.db.begin(caller.tenant()).await?;
        store::list(&mut tx, caller.tenant(), level, &filter, &mut page).await?;
        page.finish()
    }

    /// A page of assignments, of `user` or of all subjects, and the token of the next page.
    pub(super) async fn list_assignments(
        &self,
        caller: &Caller,
        user: Option<SubjectId>,
        message: &ListRoleAssignmentsRequest,
    ) -> Result<(Vec<RoleAssignment>, String)> {
        let filter = AssignmentFilter {
            user,
            role: RoleId::parse_optional("role_id", &message.role_id)?,
            role_name: Filter::parse(&message.filter, ASSIGNMENT_FIELDS)?,
        };
        let mut page = self.pages.begin(caller.page_caller(), message)?;
        let mut tx = self.db.begin(caller.tenant()).await?;
        assignments::list(&mut tx, caller.tenant(), &filter, &mut page).await?;
        page.finish()
    }
}
