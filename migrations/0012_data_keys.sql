-- Each tenant's data key, which its personal data is sealed under: wrapped by a master
-- key that the database never sees. It refers to no tenant: the row of the id 0 is for
-- what belongs to none.
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

-- Whoever deletes a tenant destroys its data key with it.
create function destroy_data_key() returns trigger
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    delete from data_keys where tenant_id = old.tenant_id;
    return null;
end $$;

create trigger tenants_data_key after delete on tenants
    for each row execute function destroy_data_key();

-- Rotation of the master key works across tenants, from a transaction that works in
-- none: in that of the id 0.
create function works_in_no_tenant() returns boolean
    language sql stable
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select coalesce(current_tenant() = '00000000-0000-0000-0000-000000000000', false);
end;

-- The data keys that another master key than this one wraps, of the tenants after one.
create function data_keys_not_by(p_by text, p_after uuid, p_limit bigint)
    returns table (tenant_id uuid, wrapped bytea, wrapped_by text)
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select k.tenant_id, k.wrapped, k.wrapped_by
    from data_keys k
    where works_in_no_tenant()
      and k.wrapped_by <> p_by
      and (p_after is null or k.tenant_id > p_after)
    order by k.tenant_id
    limit p_limit;
end;

-- Replaces a data key as it is kept, if it is still kept like that.
create function rewrap_data_key(p_tenant uuid, p_old bytea, p_new bytea, p_by text)
    returns boolean
    language plpgsql security definer
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    update data_keys k set wrapped = p_new, wrapped_by = p_by
    where works_in_no_tenant() and k.tenant_id = p_tenant and k.wrapped = p_old;
    return found;
end $$;

-- How many data keys each master key wraps.
create function count_data_keys() returns table (wrapped_by text, data_keys bigint)
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select k.wrapped_by, count(*)
    from data_keys k
    where works_in_no_tenant()
    group by 1
    order by 1;
end;

do $$
declare
    lookup text;
begin
    grant create on schema public to tenantry_lookup;
    foreach lookup in array array[
        'data_keys_not_by(text, uuid, bigint)',
        'rewrap_data_key(uuid, bytea, bytea, text)',
        'count_data_keys()'
    ] loop
        execute format('revoke execute on function %s from public', lookup);
        execute format('grant execute on function %s to tenantry_app', lookup);
        execute format('alter function %s owner to tenantry_lookup', lookup);
    end loop;
    revoke create on schema public from tenantry_lookup;
end $$;
