-- The only ways to look across tenants. Each is a function of a role that may
-- read just the columns that it needs.
grant select (tenant_id, name, slug, settings, state, is_platform, version, created_at, updated_at)
    on tenants to tenantry_lookup;
grant select (tenant_id, email_lookup) on users to tenantry_lookup;

create policy tenants_of_lookup on tenants for select to tenantry_lookup using (true);
create policy users_of_lookup on users for select to tenantry_lookup using (true);

-- The tenant with exactly this id or slug.
create function find_tenant(p_key text)
    returns table (tenant_id uuid, slug text, state text, is_platform boolean)
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select t.tenant_id, t.slug, t.state, t.is_platform
    from tenants t
    where t.tenant_id = case
            when p_key ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' then p_key::uuid
        end
       or t.slug = p_key
    limit 1;
end;

-- The tenant that has a user with this email, where it is the only one.
create function find_tenant_by_email(p_email_lookup bytea)
    returns table (tenant_id uuid, slug text, state text, is_platform boolean)
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select t.tenant_id, t.slug, t.state, t.is_platform
    from tenants t
    where t.tenant_id = (
        select case when count(*) = 1 then (array_agg(u.tenant_id))[1] end
        from (select tenant_id from users where email_lookup = p_email_lookup limit 2) u
    );
end;

-- A page of all tenants, for a transaction that works in the platform tenant;
-- nothing for any other.
create function list_tenants(
    p_after uuid, p_limit bigint, p_state text, p_slug_like text, p_name_like text
)
    returns table (
        tenant_id uuid, name text, slug text, settings jsonb, state text,
        version bigint, created_at timestamptz, updated_at timestamptz
    )
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select t.tenant_id, t.name, t.slug, t.settings, t.state, t.version, t.created_at, t.updated_at
    from tenants t
    where exists (
            select from tenants p where p.tenant_id = current_tenant() and p.is_platform
        )
      and t.tenant_id > p_after
      and (p_state is null or t.state = p_state)
      and (p_slug_like is null or t.slug like p_slug_like)
      and (p_name_like is null or t.name like p_name_like)
    order by t.tenant_id
    limit p_limit;
end;

do $$
declare
    lookup text;
begin
    -- A migrating role that is no superuser must be a member of the role that
    -- it hands the functions to, and that role must be able to create them.
    if not (select rolsuper from pg_roles where rolname = current_user) then
        execute format('grant tenantry_lookup to %I', current_user);
    end if;
    grant create on schema public to tenantry_lookup;
    foreach lookup in array array[
        'find_tenant(text)',
        'find_tenant_by_email(bytea)',
        'list_tenants(uuid, bigint, text, text, text)'
    ] loop
        execute format('revoke execute on function %s from public', lookup);
        execute format('alter function %s owner to tenantry_lookup', lookup);
        execute format('grant execute on function %s to tenantry_app', lookup);
    end loop;
    revoke create on schema public from tenantry_lookup;
end $$;
