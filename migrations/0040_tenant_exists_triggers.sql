-- no-transaction
-- No table gets a row of a deleted tenant: the function is in 0028_delete_tenants.sql.
--
-- Each block is a transaction of its own, so that no call waits for two tables
-- (README.md). An attempt that fails is repeated from the start.

begin;
create or replace trigger users_tenant_exists after insert on users
    for each row execute function refuse_deleted_tenant('users_tenant_fkey');
commit;

begin;
create or replace trigger service_accounts_tenant_exists after insert on service_accounts
    for each row execute function refuse_deleted_tenant('service_accounts_tenant_fkey');
commit;

begin;
create or replace trigger roles_tenant_exists after insert on roles
    for each row execute function refuse_deleted_tenant('roles_tenant_fkey');
commit;

begin;
create or replace trigger role_assignments_tenant_exists after insert on role_assignments
    for each row execute function refuse_deleted_tenant('role_assignments_subject_fkey');
commit;

begin;
create or replace trigger api_keys_tenant_exists after insert on api_keys
    for each row execute function refuse_deleted_tenant('api_keys_account_fkey');
commit;
