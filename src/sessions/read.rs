//! `GetSession` and `ListSessions`.

use super::{
    Sessions,
    store::{self, SessionClient, SessionRow},
};
use crate::{
    api::filter::{Field, Filter, Kind},
    error::{Error, Result},
    gate::Caller,
    ids::{SessionId, SubjectId},
    proto::v1::{ListSessionsRequest, Session},
};

const FIELDS: &[Field] = &[Field { name: "device_name", kind: Kind::Text }];

impl Sessions {
    /// Reads a session; with `required_user`, only a session of that user.
    pub(super) async fn get(
        &self,
        caller: &Caller,
        session: SessionId,
        required_user: Option<SubjectId>,
    ) -> Result<(SessionRow, Option<SessionClient>)> {
        let tenant = caller.tenant();
        let mut tx = self.db.begin(tenant).await?;
        let row = store::get(&mut tx, tenant, session, required_user).await?;
        let row = row.ok_or_else(Error::not_found)?;
        let client = row.open_client(&*tx.cipher(tenant)?)?;
        // Always `Some`: only the rows of a list may be unreadable.
        Ok((row, Some(client)))
    }

    /// A page of a user's live sessions and the token of the next page.
    pub(super) async fn list(
        &self,
        caller: &Caller,
        user: SubjectId,
        message: &ListSessionsRequest,
    ) -> Result<(Vec<Session>, String)> {
        let filter = Filter::parse(&message.filter, FIELDS)?;
        let mut page = self.pages.begin(caller.page_caller(), message)?;
        let mut tx = self.db.begin(caller.tenant()).await?;
        store::list_live(&mut tx, caller.tenant(), user, &filter, &mut page).await?;
        page.finish()
    }
}
