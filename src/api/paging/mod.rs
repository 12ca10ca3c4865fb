//! Pages of lists (AIP-158), the same for every list RPC: bounded in items, in encoded
//! bytes, and in the rows that are read for them.

mod position;
mod request;

use std::{sync::Arc, time::Duration};

use prost::{Message, encoding::encoded_len_varint};
use tokio::time::Instant;

pub use position::Position;
pub use request::ListRequest;

use crate::{
    concurrency::pace::Pace,
    error::{Error, Result},
    ids::{TenantId, UserId},
    proto::v1::ErrorReason,
    tokens::OpaqueTokens,
};

/// The size of a reply, in bytes, at most. Clients accept 4 MiB by default.
pub const MAX_REPLY_BYTES: usize = 3 << 20;

/// What a list's reply has besides its items: the next page's token.
pub const ENVELOPE_BYTES: usize = 1024;

/// The items of a page where the request does not say.
const DEFAULT_SIZE: usize = 50;

/// The items of a page, at most.
pub const MAX_SIZE: usize = 1000;

/// The rows that a page reads to find its items, at most.
const MAX_ROWS: usize = 10_000;

/// For how long a page reads rows; what it has read by then is the page.
const MAX_TIME: Duration = Duration::from_millis(100);

/// The rows that one statement reads: of small rows, and of those that may have many KiB.
pub const SMALL_ROWS: usize = 1000;
/// See [`SMALL_ROWS`].
pub const LARGE_ROWS: usize = 100;

/// Who asks for a list, and where.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The caller's own tenant.
    pub home: TenantId,
    /// The caller.
    pub user: UserId,
    /// The tenant that the request works in.
    pub tenant: TenantId,
}

/// Begins pages, and makes their tokens.
#[derive(Clone)]
pub struct Pages(Arc<OpaqueTokens>);

impl Pages {
    /// Names the tokens' key.
    pub const LABEL: &str = "tenantry page token";

    /// Pages with these tokens.
    #[must_use]
    pub fn new(tokens: Arc<OpaqueTokens>) -> Self {
        Self(tokens)
    }

    /// The page that a request asks for. Its token is bound to the caller, the tenant,
    /// the method, and all that the request says besides its page.
    ///
    /// # Errors
    /// `INVALID_PAGE_TOKEN` when the token was not made for this request.
    pub fn begin<R: ListRequest>(&self, asker: Asker, request: &R) -> Result<Page<R::Item>> {
        let (page_size, page_token) = request.page();
        let size = match usize::try_from(page_size).unwrap_or_default() {
            0 => DEFAULT_SIZE,
            size => size.min(MAX_SIZE),
        };
        let binding = binding(asker, request);
        let after = self.position(&binding, page_token, Position::read)?;
        Ok(Page {
            tokens: self.0.clone(),
            binding,
            size,
            began: Instant::now(),
            after,
            items: Vec::new(),
            bytes: ENVELOPE_BYTES,
            rows: 0,
            end: None,
        })
    }

    /// Where the page before ended, in a list whose positions are its own; `None` for the
    /// first page.
    ///
    /// # Errors
    /// `INVALID_PAGE_TOKEN` when the token was not made for this request.
    pub fn after<R: ListRequest, P>(
        &self,
        asker: Asker,
        request: &R,
        read: impl Fn(&[u8]) -> Option<P>,
    ) -> Result<Option<P>> {
        self.position(&binding(asker, request), request.page().1, read)
    }

    /// The token of the page that begins after a position of such a list.
    ///
    /// # Errors
    /// INTERNAL when it can't be sealed, which it always can.
    pub fn token<R: ListRequest>(
        &self,
        asker: Asker,
        request: &R,
        position: Vec<u8>,
    ) -> Result<String> {
        self.0.seal(&binding(asker, request), position)
    }

    fn position<P>(
        &self,
        binding: &[u8],
        token: &str,
        read: impl Fn(&[u8]) -> Option<P>,
    ) -> Result<Option<P>> {
        if token.is_empty() {
            return Ok(None);
        }
        let payload = self.0.open(binding, token);
        payload.and_then(|payload| read(&payload)).map(Some).ok_or_else(foreign)
    }
}

fn binding<R: ListRequest>(asker: Asker, request: &R) -> Vec<u8> {
    let mut binding = [R::METHOD.as_bytes(), &[0]].concat();
    for id in [asker.home.0, asker.user.0, asker.tenant.0] {
        binding.extend_from_slice(id.as_bytes());
    }
    binding.extend(request.without_page().encode_to_vec());
    binding
}

fn foreign() -> Error {
    let text = "the page_token was not made for this request";
    Error::refused(ErrorReason::InvalidPageToken, text)
}

/// A page that is being filled, in a loop: [`Page::next_read`], the store's rows,
/// [`Page::take`]; then [`Page::finish`].
pub struct Page<M> {
    tokens: Arc<OpaqueTokens>,
    binding: Vec<u8>,
    size: usize,
    began: Instant,
    /// The last row that was looked at, by this page or the one before.
    after: Option<Position>,
    items: Vec<M>,
    /// What the reply has so far, encoded.
    bytes: usize,
    rows: usize,
    end: Option<End>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The page is full.
    OfPage,
    /// There are no more rows.
    OfList,
}

/// Which rows to read: the first `limit` after a position.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// Where the rows before ended; `None` at the beginning.
    pub after: Option<Position>,
    /// How many.
    pub limit: i64,
}

impl Read {
    /// The rows that this read found: fewer than asked for are the last.
    #[must_use]
    pub fn found<T>(&self, rows: Vec<T>) -> Found<T> {
        let is_last = i64::try_from(rows.len()).is_ok_and(|count| count < self.limit);
        Found { rows, is_last }
    }

    /// The id to read after, in a list that is ordered by id alone.
    #[must_use]
    pub fn after_id(&self) -> uuid::Uuid {
        self.after.map(|position| position.id).unwrap_or_default()
    }
}

/// Rows in the list's order.
pub struct Found<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Whether no others follow.
    pub is_last: bool,
}

impl<M: Message> Page<M> {
    /// What to read next, `most` rows at most; `None` when the page is complete. The
    /// first read asks for what the page lacks and one more, which tells whether a page
    /// follows.
    #[must_use]
    pub fn next_read(&self, most: usize) -> Option<Read> {
        let is_over = self.rows >= MAX_ROWS || self.rows > 0 && self.began.elapsed() >= MAX_TIME;
        if self.end.is_some() || is_over {
            return None;
        }
        let limit = match self.rows {
            0 => most.min(self.size + 1),
            _ if self.items.len() == self.size => 1,
            _ => most,
        };
        Some(Read { after: self.after, limit: i64::try_from(limit).unwrap_or(i64::MAX) })
    }

    /// Takes rows into the page, as far as there is room: `show` makes an item of a row,
    /// or none of one that the filter leaves out.
    ///
    /// # Errors
    /// Those of `show`.
    pub async fn take<T: Send>(
        &mut self,
        found: Found<T>,
        position: impl Fn(&T) -> Position + Send,
        mut show: impl FnMut(T) -> Result<Option<M>> + Send,
    ) -> Result<()> {
        let mut pace = Pace::new();
        for row in found.rows {
            if self.items.len() == self.size {
                self.end = Some(End::OfPage);
                return Ok(());
            }
            let at = position(&row);
            if let Some(item) = show(row)? {
                let bytes = self.bytes + encoded_bytes(&item);
                // An item alone is sent whatever its size: what is written is bounded.
                if bytes > MAX_REPLY_BYTES && !self.items.is_empty() {
                    self.end = Some(End::OfPage);
                    return Ok(());
                }
                self.bytes = bytes;
                self.items.push(item);
            }
            self.after = Some(at);
            self.rows += 1;
            pace.pause().await;
        }
        if found.is_last {
            self.end = Some(End::OfList);
        }
        Ok(())
    }

    /// The items, and the next page's token; empty on the last page.
    ///
    /// # Errors
    /// INTERNAL when the token can't be sealed, which it always can.
    pub fn finish(self) -> Result<(Vec<M>, String)> {
        let after = self.after.filter(|_| self.end != Some(End::OfList));
        let token = after.map(|position| self.tokens.seal(&self.binding, position.write()));
        Ok((self.items, token.transpose()?.unwrap_or_default()))
    }
}

/// An item's size as a field of its reply.
#[must_use]
pub fn encoded_bytes(item: &impl Message) -> usize {
    let length = item.encoded_len();
    1 + encoded_len_varint(u64::try_from(length).unwrap_or(u64::MAX)) + length
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::proto::v1::{ListRolesRequest, ListUsersRequest, Role};

    fn pages() -> Pages {
        Pages::new(Arc::new(OpaqueTokens::with(Pages::LABEL, &[[1; 32]]).expect("a key")))
    }

    fn asker(home: u128, user: u128, tenant: u128) -> Asker {
        let id = Uuid::from_u128;
        Asker { home: TenantId(id(home)), user: UserId(id(user)), tenant: TenantId(id(tenant)) }
    }

    fn request(page_size: i32, page_token: &str) -> ListRolesRequest {
        ListRolesRequest { page_size, page_token: page_token.into(), ..Default::default() }
    }

    /// Reads a page of the roles 1, 2, …, `count`, whose names have `bytes` bytes.
    async fn read(request: &ListRolesRequest, count: u128, bytes: usize) -> (Vec<u128>, String) {
        let mut page = pages().begin(asker(1, 2, 3), request).expect("a page");
        while let Some(read) = page.next_read(100) {
            let from = read.after_id().as_u128() + 1;
            let limit = u128::try_from(read.limit).expect("a limit");
            let rows = (from..=count.min(from + limit - 1)).collect();
            let at = |n: &u128| Position::of(Uuid::from_u128(*n));
            let show = |n: u128| {
                let name = "x".repeat(bytes);
                Ok((n % 2 == 1).then(|| Role { id: n.to_string(), name, ..Role::default() }))
            };
            page.take(read.found(rows), at, show).await.expect("taken");
        }
        let (roles, token) = page.finish().expect("a page");
        assert!(roles.iter().map(encoded_bytes).sum::<usize>() < MAX_REPLY_BYTES);
        (roles.iter().map(|role| role.id.parse().expect("a number")).collect(), token)
    }

    async fn all(page_size: i32, count: u128, bytes: usize) -> (Vec<u128>, usize) {
        let (mut ids, mut pages, mut token) = (Vec::new(), 0, String::new());
        loop {
            let (found, next) = read(&request(page_size, &token), count, bytes).await;
            ids.extend(found);
            pages += 1;
            if next.is_empty() {
                return (ids, pages);
            }
            token = next;
        }
    }

    #[tokio::test]
    async fn pages_join_without_gap_or_double() {
        for (size, count, bytes, pages) in [
            (0, 99, 1, 1),
            (0, 101, 1, 2),
            (1, 5, 1, 3),
            (1000, 1000, 1, 1),
            (i32::MAX, 2000, 1, 1),
            // Three of a mebibyte do not fit, with what is around them.
            (1000, 10, 1 << 20, 3),
            (0, 3, 5 << 19, 2),
        ] {
            let (ids, read) = all(size, count, bytes).await;
            assert!(ids.iter().copied().eq((1..=count).step_by(2)), "{size} of {count}: {ids:?}");
            // More, where the machine is slow: a page ends in time.
            assert!(read >= pages, "{size} of {count}: {read}");
        }
    }

    #[tokio::test]
    async fn a_page_reads_so_many_rows_and_no_more() {
        let mut page = pages().begin(asker(1, 2, 3), &request(0, "")).expect("a page");
        let mut reads = 0;
        while let Some(read) = page.next_read(1000) {
            let rows = vec![(); usize::try_from(read.limit).expect("a limit")];
            let nothing =
                page.take(read.found(rows), |()| Position::of(Uuid::max()), |()| Ok(None));
            nothing.await.expect("taken");
            reads += 1;
        }
        assert!(reads <= 11, "{reads}");
        let (items, token) = page.finish().expect("a page");
        assert!(items.is_empty() && !token.is_empty());
    }

    /// N14
    #[tokio::test]
    async fn a_token_is_bound_to_caller_tenant_method_and_request() {
        let first = ListRolesRequest { filter: "name = x".into(), ..request(1, "") };
        let (_, token) = read(&first, 5, 1).await;
        let next = ListRolesRequest { page_token: token.clone(), ..first.clone() };
        let begin = |asker, request: &ListRolesRequest| pages().begin(asker, request).is_ok();
        assert!(begin(asker(1, 2, 3), &next));
        let longer = ListRolesRequest { page_size: 7, ..next.clone() };
        assert!(begin(asker(1, 2, 3), &longer), "the size may change");

        for other in [asker(9, 2, 3), asker(1, 9, 3), asker(1, 2, 9)] {
            assert!(!begin(other, &next), "{other:?}");
        }
        let filter = String::new();
        assert!(!begin(asker(1, 2, 3), &ListRolesRequest { filter, ..next.clone() }));
        let users = ListUsersRequest {
            page_size: 1,
            page_token: token,
            filter: next.filter,
            ..ListUsersRequest::default()
        };
        assert!(pages().begin(asker(1, 2, 3), &users).is_err(), "another method");
    }
}
