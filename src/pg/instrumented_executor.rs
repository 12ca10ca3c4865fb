//! Metrics and traces of statements. The metrics and traces contain words of the SQL text, but
//! never values of parameters.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use futures_util::{
    FutureExt, Stream, StreamExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    Database, Describe, Either, Execute, Executor, Postgres, SqlStr,
    error::BoxDynError,
    postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};

use super::pooled::{InProgress, Pool, PooledConnection};
use crate::{
    concurrency::fair_permits::Permit,
    telemetry::{Operations, RunningOperation},
};

const SYSTEM: &str = "postgresql";

/// An executor that records metrics and traces of each statement.
#[derive(Debug)]
pub struct InstrumentedExecutor<'c> {
    target: Target<'c>,
    operations: Operations,
}

#[derive(Debug)]
enum Target<'c> {
    /// The connection of a transaction.
    Transaction(&'c mut PooledConnection),
    /// The pool. The one statement of the executor takes a connection from it.
    Pool(Pool, Option<Permit>),
}

impl<'c> InstrumentedExecutor<'c> {
    pub(super) fn transaction(
        connection_in_use: &'c mut PooledConnection,
        operations: &Operations,
    ) -> Self {
        Self { target: Target::Transaction(connection_in_use), operations: operations.clone() }
    }

    pub(super) fn pool(pool: Pool, permit: Option<Permit>) -> Self {
        Self { operations: pool.operations().clone(), target: Target::Pool(pool, permit) }
    }

    /// Begins the measurement of a statement. The returned query stores its text in the [`SqlText`]
    /// when it runs, and the end of the measurement reads the text there.
    fn begin_measurement<E>(&self, query: E) -> (RunningOperation, SqlText, Captured<E>) {
        let text = SqlText::default();
        (self.operations.begin(SYSTEM), text.clone(), Captured { query, text })
    }
}

/// Records `BEGIN` or `COMMIT`, which do not run on an [`InstrumentedExecutor`].
pub(super) async fn observe<T>(
    operations: &Operations,
    operation: &'static str,
    statement: impl Future<Output = sqlx::Result<T>>,
) -> sqlx::Result<T> {
    let running = operations.begin(SYSTEM);
    let result = statement.await;
    running.end(operation, "", result.as_ref().err().map(error_type));
    result
}

/// An item of [`Executor::fetch_many`]: a row, or the summary that follows the rows of a statement.
type Step = sqlx::Result<Either<PgQueryResult, PgRow>>;

impl<'c> Executor<'c> for InstrumentedExecutor<'c> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Step>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let (running, text, query) = self.begin_measurement(query);
        let rows = match self.target {
            Target::Transaction(connection_in_use) => {
                let handle_error = connection_in_use.error_handler();
                match connection_in_use.connection() {
                    Ok(connection) => {
                        connection.fetch_many(query).inspect_err(handle_error).boxed()
                    }
                    Err(error) => stream::iter([Err(error)]).boxed(),
                }
            }
            Target::Pool(pool, permit) => all_rows(pool, permit, query).flatten_stream().boxed(),
        };
        Box::pin(Rows { steps: rows, text, running: Some(running) })
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let (running, text, query) = self.begin_measurement(query);
        let row = match self.target {
            Target::Transaction(connection_in_use) => async move {
                let row = connection_in_use.connection()?.fetch_optional(query).await;
                row.inspect_err(|error| connection_in_use.handle_error(error))
            }
            .boxed(),
            Target::Pool(pool, permit) => first_row(pool, permit, query).boxed(),
        };
        Box::pin(async move {
            let result = row.await;
            end_measurement(running, &text, result.as_ref().err());
            result
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            match self.target {
                Target::Transaction(connection_in_use) => {
                    connection_in_use.connection()?.prepare_with(sql, parameters).await
                }
                Target::Pool(pool, _) => pool.connections().prepare_with(sql, parameters).await,
            }
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<Describe<Postgres>>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            match self.target {
                Target::Transaction(connection_in_use) => {
                    connection_in_use.connection()?.describe(sql).await
                }
                Target::Pool(pool, _) => pool.connections().describe(sql).await,
            }
        })
    }
}

/// Runs a single statement on a pool connection and returns its first row.
async fn first_row<'q>(
    pool: Pool,
    permit: Option<Permit>,
    query: impl Execute<'q, Postgres> + 'q,
) -> sqlx::Result<Option<PgRow>> {
    let mut connection_in_use = PooledConnection::acquire(&pool, permit).await?;
    connection_in_use.work = InProgress::Statement;
    let row = connection_in_use.connection()?.fetch_optional(query).await;
    connection_in_use.work = InProgress::Nothing;
    row.inspect_err(|error| connection_in_use.handle_error(error))
}

/// Runs a single statement on a pool connection. All rows are read before the first row is
/// returned, so the connection is free while the rows are processed.
async fn all_rows<'q>(
    pool: Pool,
    permit: Option<Permit>,
    query: impl Execute<'q, Postgres> + 'q,
) -> stream::Iter<std::vec::IntoIter<Step>> {
    let read_rows = async {
        let mut connection_in_use = PooledConnection::acquire(&pool, permit).await?;
        connection_in_use.work = InProgress::Statement;
        let rows = connection_in_use.connection()?.fetch_many(query).collect::<Vec<Step>>().await;
        connection_in_use.work = InProgress::Nothing;
        if let Some(Err(error)) = rows.last() {
            connection_in_use.handle_error(error);
        }
        sqlx::Result::Ok(rows)
    };
    stream::iter(read_rows.await.unwrap_or_else(|error| vec![Err(error)]))
}

/// The text of a statement. It is not set before sqlx takes the text from the query.
#[derive(Clone, Default)]
struct SqlText(Arc<OnceLock<SqlStr>>);

/// A query that stores its text in [`SqlText`] when sqlx takes it.
struct Captured<E> {
    query: E,
    text: SqlText,
}

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Captured<E> {
    fn sql(self) -> SqlStr {
        let sql = self.query.sql();
        self.text.0.set(sql.clone()).ok();
        sql
    }

    fn statement(&self) -> Option<&<Postgres as Database>::Statement> {
        self.query.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.query.take_arguments()
    }

    fn persistent(&self) -> bool {
        self.query.persistent()
    }
}

/// A stream of rows that ends the measurement at the last row or the first error.
struct Rows<'e> {
    steps: BoxStream<'e, Step>,
    text: SqlText,
    running: Option<RunningOperation>,
}

impl Stream for Rows<'_> {
    type Item = Step;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Step>> {
        let step = ready!(self.steps.as_mut().poll_next(cx));
        if !matches!(step, Some(Ok(_)))
            && let Some(running) = self.running.take()
        {
            let error = step.as_ref().and_then(|step| step.as_ref().err());
            end_measurement(running, &self.text, error);
        }
        Poll::Ready(step)
    }
}

/// Ends the measurement of a statement, with the text of the statement and its error, if any.
fn end_measurement(running: RunningOperation, text: &SqlText, error: Option<&sqlx::Error>) {
    let sql = text.0.get().map_or("", |sql| sql.as_str());
    let (operation, target) = summary(sql, running.is_traced());
    running.end(operation, target, error.map(error_type));
}

/// The operation of a statement (its first word) and, if `with_target`, its target: the first
/// table or function in the statement.
fn summary(sql: &str, with_target: bool) -> (&'static str, &str) {
    const OPERATIONS: [&str; 5] = ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"];
    let mut words = sql.split_whitespace();
    let first = words.next().unwrap_or_default();
    let operation = OPERATIONS.into_iter().find(|name| name.eq_ignore_ascii_case(first));
    let operation = operation.unwrap_or("OTHER");
    if !with_target {
        return (operation, "");
    }
    let target = if operation == "UPDATE" {
        words.next()
    } else {
        let mut rest = words.skip_while(|word| !matches!(*word, "from" | "into"));
        rest.nth(1)
    };
    let target = target.unwrap_or_default();
    let is_name_char = |c: char| c.is_ascii_alphanumeric() || c == '_';
    // Cuts off the arguments of a function: `read_changes($1)` becomes `read_changes`.
    let name_length = target.find(|c| !is_name_char(c)).unwrap_or(target.len());
    (operation, &target[..name_length])
}

/// A short error label: the `SQLSTATE` of an error from Postgres, else the kind of failure.
fn error_type(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.code().unwrap_or_default().into_owned(),
        sqlx::Error::PoolTimedOut => "pool_timed_out".to_owned(),
        sqlx::Error::PoolClosed => "pool_closed".to_owned(),
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) => "connection".to_owned(),
        _ => "other".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_the_operation_and_the_table_or_function_of_a_statement() {
        for (sql, expected) in [
            ("select a from users where b = $1", ("SELECT", "users")),
            ("\n  insert into api_keys (a) values ($1)", ("INSERT", "api_keys")),
            ("update sessions set a = 1", ("UPDATE", "sessions")),
            ("delete from roles", ("DELETE", "roles")),
            ("select * from subject_standings($1, $2)", ("SELECT", "subject_standings")),
            ("select pg_advisory_xact_lock($1)", ("SELECT", "")),
            ("begin", ("OTHER", "")),
            ("", ("OTHER", "")),
        ] {
            assert_eq!(summary(sql, true), expected, "{sql}");
            assert_eq!(summary(sql, false), (expected.0, ""), "{sql}");
        }
    }
}
