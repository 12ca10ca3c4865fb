//! The number of rows that a command reads with one statement. Postgres cancels a statement after
//! 10 seconds. The command then reads smaller pages, so it also completes with a slow database.

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

    /// Reads a page. While the read takes too long, repeats it with fewer rows, down to one row.
    /// The next pages have the size that was read in time.
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

    /// Reads a page from a database that reads at most `rows_in_time` rows before the timeout.
    /// Returns the number of rows in the page.
    async fn read_page(page_size: &mut PageSize, rows_in_time: i64) -> Result<i64> {
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
        // A smaller size is kept: at the third read, 500 rows would be read in time.
        for (rows_in_time, expected) in [(1000, 500), (499, 50), (500, 50), (1, 1)] {
            assert_eq!(read_page(&mut page_size, rows_in_time).await.ok(), Some(expected));
        }
        // Not even one row is read in time.
        let error = read_page(&mut page_size, 0).await.err().map(|error| error.reason());
        assert_eq!(error, Some(ErrorReason::DeadlineExceeded));
    }
}
