-- no-transaction
-- The function of the trim (0030_trim_rows.sql) sees only rows that have ended.
--
-- Each block is a transaction of its own, so that no call waits for two tables
-- (README.md). An attempt that fails is repeated from the start.

begin;
drop policy if exists sessions_of_trim on sessions;
create policy sessions_of_trim on sessions to tenantry_lookup
    using (least(expires_at, refresh_expires_at, revoked_at) <= now());
commit;

begin;
drop policy if exists role_assignments_of_trim on role_assignments;
create policy role_assignments_of_trim on role_assignments to tenantry_lookup
    using (expires_at <= now() - interval '1 day');
commit;

begin;
drop policy if exists api_keys_of_trim on api_keys;
create policy api_keys_of_trim on api_keys to tenantry_lookup
    using (least(expires_at, revoked_at) <= now());
commit;

begin;
drop policy if exists spent_assertions_of_trim on spent_assertions;
create policy spent_assertions_of_trim on spent_assertions to tenantry_lookup
    using (expires_at <= now());
commit;

begin;
drop policy if exists mail_links_of_trim on mail_links;
create policy mail_links_of_trim on mail_links to tenantry_lookup
    using (expires_at <= now());
commit;
