-- The service asks each Postgres server for its timeline, before it uses the server: a server
-- whose timeline is lower than before has lost acknowledged writes.

grant execute on function server_identity() to tenantry_app;
