-- Returns the ids of all tenants that are not deleted, in their order, p_limit at most, from
-- the first after p_after.
--
-- Decides: a deleted tenant has nothing that a restore must end.
-- Called by: tenantry restored (src/cli/restored/store.rs), as the schema's owner.
-- In SQL because: security definer, it reads across tenants. The service may not call it.
create function list_all_tenants(p_after uuid, p_limit bigint) returns setof uuid
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select t.tenant_id from tenants t
    where t.deleted_at is null and (p_after is null or t.tenant_id > p_after)
    order by t.tenant_id limit p_limit;
end;

revoke execute on function list_all_tenants(uuid, bigint) from public;
grant create on schema public to tenantry_lookup;
alter function list_all_tenants(uuid, bigint) owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;
