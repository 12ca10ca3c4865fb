//! The number of rows that a command reads with one statement. Postgres cancels a statement after 10
//! seconds; a slow database then gets smaller pages, so the command is not ended.

use crate::{
    error::{Error, Result},
    proto::v1::ErrorReason,
};

/// The factor by which pages become smaller.
const FACTOR: i64 = 10;

/// The number of rows of the next page.
pub struct PageSize(i64);

impl PageSize {
    pub fn new(rows: i64) -> Self {
        Self(rows)
    }

    /// Reads a page. Repeats the read with fewer rows while it takes too long, down to one row. The
    /// next pages have the size that did not take too long.
    ///
    /// # Errors
    /// The error of the read.
    pub async fn read<T, F: Future<Output = Result<T>>>(
        &mut self,
        read: impl Fn(i64) -> F,
    ) -> Result<T> {
        loop {
            match read(self.0).await {
                Err(error) if took_too_long(&error) && self.0 > 1 => {
                    self.0 = (self.0 / FACTOR).max(1);
                }
                result => return result,
            }
        }
    }
}

fn took_too_long(error: &Error) -> bool {
    error.reason() == ErrorReason::DeadlineExceeded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads pages from a database that manages only so many rows in time.
    async fn read(page_size: &mut PageSize, rows_in_time: i64) -> Result<i64> {
        let read = |rows| async move {
            if rows <= rows_in_time {
                Ok(rows)
            } else {
                Err(Error::refused(ErrorReason::DeadlineExceeded, "cancelled"))
            }
        };
        page_size.read(read).await
    }

    #[tokio::test]
    async fn pages_become_smaller_until_they_are_read_in_time() {
        let mut page_size = PageSize::new(500);
        for (rows_in_time, expected) in [(1000, 500), (499, 50), (500, 50), (1, 1)] {
            assert_eq!(read(&mut page_size, rows_in_time).await.ok(), Some(expected));
        }
        let error = read(&mut page_size, 0).await.err().map(|error| error.reason());
        assert_eq!(error, Some(ErrorReason::DeadlineExceeded));
    }
}
