-- The data key of each tenant. It seals the tenant's personal data. A master key that the
-- database never sees wraps it. 0024_rewrap_data_keys.sql rotates the master key.

-- No foreign key to tenants: the row with tenant_id 0 has the key for data that belongs to
-- no tenant.
create table data_keys (
    tenant_id  uuid        not null,
    wrapped    bytea       not null,
    -- The master key: `file:<id>`, `transit:<name>:v<version>`, or `none`.
    wrapped_by text        not null,
    created_at timestamptz not null default now(),
    constraint data_keys_pkey primary key (tenant_id)
);

alter table data_keys enable row level security;
alter table data_keys force row level security;
create policy data_keys_of_tenant on data_keys
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
create policy data_keys_of_lookup on data_keys to tenantry_lookup using (true) with check (true);
grant select, insert, delete on data_keys to tenantry_app;
grant select, update (wrapped, wrapped_by) on data_keys to tenantry_lookup;

-- Deletes the data key of a deleted tenant.
--
-- Decides: the personal data of a deleted tenant cannot be read again, also not in the
--     audit events that stay, or in a later copy of the database.
-- Called by: the trigger tenants_data_key.
-- In SQL because: with a trigger, no statement can delete a tenant and keep its key.
create function destroy_data_key() returns trigger
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    delete from data_keys where tenant_id = old.tenant_id;
    return null;
end $$;
