-- Rotation of the master key: each data key is wrapped again by the new master key. This
-- works across tenants, from a transaction that works in the tenant with id 0.

-- Returns whether the transaction works in the tenant with id 0.
--
-- Decides: a transaction that works in a real tenant sees no data keys of others.
-- Called by: the functions below.
-- In SQL because: the functions below call it.
create function works_in_no_tenant() returns boolean
    language sql stable
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select coalesce(current_tenant() = '00000000-0000-0000-0000-000000000000', false);
end;

-- Returns the data keys that another master key than p_by wraps, in the order of tenants,
-- after the tenant p_after.
--
-- Decides: which data keys a rotation still has to wrap again.
-- Called by: src/privacy/store.rs.
-- In SQL because: security definer, it reads across tenants.
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

-- Replaces a wrapped data key, if it is still p_old. Returns whether it did.
--
-- Decides: of two rotations at the same time, only one replaces a data key. A data key that
--     was deleted with its tenant does not come back.
-- Called by: src/privacy/store.rs.
-- In SQL because: security definer, it writes across tenants.
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

-- Returns how many data keys each master key wraps.
--
-- Decides: nothing. An operator sees with it whether an old master key is still needed.
-- Called by: src/privacy/store.rs.
-- In SQL because: security definer, it reads across tenants.
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

revoke execute on function data_keys_not_by(text, uuid, bigint) from public;
grant execute on function data_keys_not_by(text, uuid, bigint) to tenantry_app;
revoke execute on function rewrap_data_key(uuid, bytea, bytea, text) from public;
grant execute on function rewrap_data_key(uuid, bytea, bytea, text) to tenantry_app;
revoke execute on function count_data_keys() from public;
grant execute on function count_data_keys() to tenantry_app;
grant create on schema public to tenantry_lookup;
alter function data_keys_not_by(text, uuid, bigint) owner to tenantry_lookup;
alter function rewrap_data_key(uuid, bytea, bytea, text) owner to tenantry_lookup;
alter function count_data_keys() owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;
