-- The two roles that the schema is granted to, and the tenant of a transaction.
--
-- tenantry_app     what the service connects as: owns nothing, bypasses nothing.
-- tenantry_lookup  owns the few functions that look across tenants; nobody
--                  connects as it.
do $$
begin
    create role tenantry_app login;
exception when duplicate_object or unique_violation then null;
end $$;

do $$
begin
    create role tenantry_lookup nologin;
exception when duplicate_object or unique_violation then null;
end $$;

-- Roles are shared by all databases of a cluster: an earlier, wider one must
-- not slip in.
do $$
begin
    if exists (
        select from pg_roles
        where rolname in ('tenantry_app', 'tenantry_lookup')
          and (rolsuper or rolbypassrls or rolcreaterole or rolcreatedb)
    ) then
        raise exception 'the roles tenantry_app and tenantry_lookup must not be privileged';
    end if;
end $$;

revoke create on schema public from public;
grant usage on schema public to tenantry_app, tenantry_lookup;

-- The tenant that this transaction works in, or null: then row security shows
-- nothing and lets nothing in. After a `set local` has ended the setting is an
-- empty string, which counts as null, like anything else that is no UUID.
create function current_tenant() returns uuid
    language sql stable parallel safe
    set search_path = pg_catalog
return case
    when current_setting('tenantry.tenant', true)
        ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
    then current_setting('tenantry.tenant', true)::uuid
end;
