-- no-transaction
-- The functions that read the rows of several tenants read no row on a standby: the function is in
-- 0035_refuse_standby.sql.
--
-- Each block is a transaction of its own, so that no call waits for two tables
-- (README.md). An attempt that fails is repeated from the start.

begin;
alter policy changes_of_lookup on changes using ((select require_primary()));
commit;

begin;
alter policy change_marks_of_lookup on change_marks using ((select require_primary()));
commit;

begin;
alter policy audit_events_of_lookup on audit_events using ((select require_primary()));
commit;

begin;
alter policy audit_queue_of_lookup on audit_queue using ((select require_primary()));
commit;

begin;
alter policy audit_chain_of_lookup on audit_chain using ((select require_primary()));
commit;

begin;
alter policy audit_outbox_of_lookup on audit_outbox using ((select require_primary()));
commit;

begin;
alter policy data_keys_of_lookup on data_keys using ((select require_primary()));
commit;

begin;
alter policy tenants_of_lookup on tenants using ((select require_primary()));
commit;

begin;
alter policy idempotency_records_of_lookup on idempotency_records using ((select require_primary()));
commit;

begin;
alter policy users_of_lookup on users using ((select require_primary()));
commit;

begin;
alter policy mail_outbox_of_lookup on mail_outbox using ((select require_primary()));
commit;
