//! Pagination of all lists (AIP-158). Each page has a maximum number of items, a maximum encoded
//! size, a maximum number of rows that are read to fill it, and a maximum reading time. A page
//! token is encrypted, and valid only for the same list, filter and caller (`page_token.rs`).

mod page_token;
mod position;
mod request;

use std::{sync::Arc, time::Duration};

use prost::{Message, encoding::encoded_len_varint};
use tokio::time::Instant;

pub use page_token::{PageCaller, Pages};
pub use position::Position;
pub use request::ListRequest;

use crate::{concurrency::pace::Pace, error::Result, tokens::OpaqueTokens};

/// The maximum size of a response with a page, in bytes. Clients accept 4 MiB by default.
pub const MAX_REPLY_BYTES: usize = 3 << 20;

/// Bytes reserved in a response for the next page token, the only content besides the items.
pub const ENVELOPE_BYTES: usize = 1024;

/// The number of items of a page when the request has no `page_size`.
const DEFAULT_SIZE: usize = 50;

/// The maximum number of items of a page.
pub const MAX_SIZE: usize = 1000;

/// The maximum number of rows that a page reads to find its items.
const MAX_ROWS: usize = 10_000;

/// The maximum time for reading the rows of a page. When this time has passed, the page is returned
/// with fewer items.
const MAX_TIME: Duration = Duration::from_millis(100);

/// The number of rows that one statement reads, for rows that are small.
pub const ROWS_PER_READ: usize = 1000;
/// The number of rows that one statement reads, for rows that may take many KiB.
pub const LARGE_ROWS_PER_READ: usize = 100;

/// A page that is being filled. While [`Page::next_read`] returns a read, read the rows from the
/// store and pass them to [`Page::add_rows`]. Then call [`Page::finish`].
pub struct Page<M> {
    tokens: Arc<OpaqueTokens>,
    /// The bytes to which the token of the next page is bound.
    binding: Vec<u8>,
    max_items: usize,
    started_at: Instant,
    /// The position of the last row that this page or the previous page examined. The next read
    /// continues after this row.
    after: Option<Position>,
    items: Vec<M>,
    /// The encoded size of the response with the items so far, in bytes.
    bytes: usize,
    rows_read: usize,
    /// `None` while the page may get more items.
    end: Option<End>,
}

/// The reason why a page gets no more items.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    PageIsFull,
    NoMoreRows,
}

/// The rows to read: the first `limit` rows after a position.
#[derive(Clone, Copy, Debug)]
pub struct PageRead {
    /// The position of the last row that was read; `None` at the beginning of the list.
    pub after: Option<Position>,
    /// The number of rows to read.
    pub limit: i64,
}

impl PageRead {
    /// Converts the rows that this read returned to a batch. If there are fewer rows than `limit`,
    /// they are the last rows of the list.
    #[must_use]
    pub fn batch<T>(&self, rows: Vec<T>) -> RowBatch<T> {
        let is_last = i64::try_from(rows.len()).is_ok_and(|count| count < self.limit);
        RowBatch { rows, is_last }
    }

    /// The id after which to read, in a list that is ordered only by id.
    #[must_use]
    pub fn after_id(&self) -> uuid::Uuid {
        self.after.map(|position| position.id).unwrap_or_default()
    }
}

/// Rows that were read, in the order of the list.
pub struct RowBatch<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Whether the list ends after these rows.
    pub is_last: bool,
}

impl<M: Message> Page<M> {
    /// The next rows to read, at most `max_rows`; `None` when the page is complete. The first read
    /// has one row more than the page may have items. This row shows whether another page follows.
    #[must_use]
    pub fn next_read(&self, max_rows: usize) -> Option<PageRead> {
        let has_reached_limit = self.rows_read >= MAX_ROWS
            || self.rows_read > 0 && self.started_at.elapsed() >= MAX_TIME;
        if self.end.is_some() || has_reached_limit {
            return None;
        }
        let limit = match self.rows_read {
            0 => max_rows.min(self.max_items + 1),
            // The page has all its items. One more row shows whether another page follows.
            _ if self.items.len() == self.max_items => 1,
            _ => max_rows,
        };
        Some(PageRead { after: self.after, limit: i64::try_from(limit).unwrap_or(i64::MAX) })
    }

    /// Adds rows to the page until it is full. `to_item` converts a row to an item, or returns
    /// `None` when the filter excludes the row.
    ///
    /// # Errors
    /// Returns the error of `to_item`.
    pub async fn add_rows<T: Send>(
        &mut self,
        batch: RowBatch<T>,
        position_of: impl Fn(&T) -> Position + Send,
        mut to_item: impl FnMut(T) -> Result<Option<M>> + Send,
    ) -> Result<()> {
        let mut pace = Pace::new();
        for row in batch.rows {
            if self.items.len() == self.max_items {
                self.end = Some(End::PageIsFull);
                return Ok(());
            }
            let position = position_of(&row);
            if let Some(item) = to_item(row)? {
                let bytes = self.bytes + encoded_bytes(&item);
                // The first item is added even if it is too large, because otherwise the list could
                // not be read further. The size of stored items is limited.
                if bytes > MAX_REPLY_BYTES && !self.items.is_empty() {
                    self.end = Some(End::PageIsFull);
                    return Ok(());
                }
                self.bytes = bytes;
                self.items.push(item);
            }
            self.after = Some(position);
            self.rows_read += 1;
            pace.pause().await;
        }
        if batch.is_last {
            self.end = Some(End::NoMoreRows);
        }
        Ok(())
    }

    /// The items, and the token of the next page. The token is empty on the last page.
    ///
    /// # Errors
    /// Returns INTERNAL when the token can't be encrypted, which does not happen with a valid key.
    pub fn finish(self) -> Result<(Vec<M>, String)> {
        let after = self.after.filter(|_| self.end != Some(End::NoMoreRows));
        let token = after.map(|position| self.tokens.seal(&self.binding, position.encode()));
        Ok((self.items, token.transpose()?.unwrap_or_default()))
    }
}

/// The size of an item as a field of the response, in bytes.
#[must_use]
pub fn encoded_bytes(item: &impl Message) -> usize {
    let length = item.encoded_len();
    1 + encoded_len_varint(u64::try_from(length).unwrap_or(u64::MAX)) + length
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        ids::{SubjectId, TenantId},
        proto::v1::{ListRolesRequest, ListUsersRequest, Role},
    };

    fn pages() -> Pages {
        Pages::new(Arc::new(
            OpaqueTokens::from_secrets(Pages::LABEL, &[[1; 32]]).expect("the key is valid"),
        ))
    }

    fn page_caller(own_tenant: u128, user: u128, tenant: u128) -> PageCaller {
        let id = Uuid::from_u128;
        PageCaller {
            own_tenant: TenantId(id(own_tenant)),
            user: SubjectId(id(user)),
            tenant: TenantId(id(tenant)),
        }
    }

    fn request(page_size: i32, page_token: &str) -> ListRolesRequest {
        ListRolesRequest { page_size, page_token: page_token.into(), ..Default::default() }
    }

    /// Reads a page of the roles 1, 2, …, `count`, with a filter that accepts only odd numbers. The
    /// name of each role has `bytes` bytes. Returns the numbers, and the token of the next page.
    async fn read_page(
        request: &ListRolesRequest,
        count: u128,
        bytes: usize,
    ) -> (Vec<u128>, String) {
        let mut page =
            pages().begin(page_caller(1, 2, 3), request).expect("the page token is valid");
        while let Some(read) = page.next_read(100) {
            let first = read.after_id().as_u128() + 1;
            let limit = u128::try_from(read.limit).expect("the limit fits");
            let rows = (first..=count.min(first + limit - 1)).collect();
            let position_of = |n: &u128| Position::by_id(Uuid::from_u128(*n));
            let to_item = |n: u128| {
                let name = "x".repeat(bytes);
                Ok((n % 2 == 1).then(|| Role { id: n.to_string(), name, ..Role::default() }))
            };
            let result = page.add_rows(read.batch(rows), position_of, to_item).await;
            result.expect("the page accepts the rows");
        }
        let (roles, token) = page.finish().expect("the token is sealed");
        assert!(roles.iter().map(encoded_bytes).sum::<usize>() < MAX_REPLY_BYTES);
        (roles.iter().map(|role| role.id.parse().expect("the id is a number")).collect(), token)
    }

    /// Reads all pages of the list of [`read_page`]. Returns the numbers, and the number of pages.
    async fn read_all(page_size: i32, count: u128, bytes: usize) -> (Vec<u128>, usize) {
        let (mut ids, mut page_count, mut token) = (Vec::new(), 0, String::new());
        loop {
            let (page_ids, next) = read_page(&request(page_size, &token), count, bytes).await;
            ids.extend(page_ids);
            page_count += 1;
            if next.is_empty() {
                return (ids, page_count);
            }
            token = next;
        }
    }

    #[tokio::test]
    async fn the_pages_together_have_each_item_exactly_once() {
        for (size, count, bytes, min_pages) in [
            // 50 of the roles 1 to 99 have an odd number: one page of the default size.
            (0, 99, 1, 1),
            (0, 101, 1, 2),
            (1, 5, 1, 3),
            (1000, 1000, 1, 1),
            // 1000 of the roles 1 to 2000 have an odd number: one page of the maximum size.
            (i32::MAX, 2000, 1, 1),
            // Five items of 1 MiB: a response of 3 MiB has two of them, because three items leave
            // no space for the token.
            (1000, 10, 1 << 20, 3),
            // Two items of 2.5 MiB: each item needs its own page.
            (0, 3, 5 << 19, 2),
        ] {
            let (ids, page_count) = read_all(size, count, bytes).await;
            assert!(ids.iter().copied().eq((1..=count).step_by(2)), "{size} of {count}: {ids:?}");
            // A slow machine needs more pages, because a page also ends after the maximum time.
            assert!(page_count >= min_pages, "{size} of {count}: {page_count}");
        }
    }

    #[tokio::test]
    async fn a_page_reads_at_most_the_maximum_number_of_rows() {
        let mut page =
            pages().begin(page_caller(1, 2, 3), &request(0, "")).expect("the page token is valid");
        let mut reads = 0;
        while let Some(read) = page.next_read(1000) {
            let rows = vec![(); usize::try_from(read.limit).expect("the limit fits")];
            let result =
                page.add_rows(read.batch(rows), |()| Position::by_id(Uuid::max()), |()| Ok(None));
            result.await.expect("the page accepts the rows");
            reads += 1;
        }
        // The first read has 51 rows. After ten more reads of 1000 rows, the maximum is exceeded.
        assert!(reads <= 11, "{reads}");
        let (items, token) = page.finish().expect("the token is sealed");
        assert!(items.is_empty() && !token.is_empty());
    }

    /// N14: a page token is valid only for the request that it was made for.
    #[tokio::test]
    async fn a_page_token_is_bound_to_caller_tenant_method_and_request() {
        let first = ListRolesRequest { filter: "name = x".into(), ..request(1, "") };
        let (_, token) = read_page(&first, 5, 1).await;
        let next = ListRolesRequest { page_token: token.clone(), ..first.clone() };
        let is_accepted =
            |caller, request: &ListRolesRequest| pages().begin(caller, request).is_ok();
        assert!(is_accepted(page_caller(1, 2, 3), &next));
        let larger_page = ListRolesRequest { page_size: 7, ..next.clone() };
        assert!(is_accepted(page_caller(1, 2, 3), &larger_page), "the size may change");

        for other in [page_caller(9, 2, 3), page_caller(1, 9, 3), page_caller(1, 2, 9)] {
            assert!(!is_accepted(other, &next), "{other:?}");
        }
        let filter = String::new();
        assert!(!is_accepted(page_caller(1, 2, 3), &ListRolesRequest { filter, ..next.clone() }));
        let users = ListUsersRequest {
            page_size: 1,
            page_token: token,
            filter: next.filter,
            ..ListUsersRequest::default()
        };
        assert!(pages().begin(page_caller(1, 2, 3), &users).is_err(), "another method");
    }
}
