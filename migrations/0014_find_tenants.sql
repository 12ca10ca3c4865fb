-- The ways to find a tenant without working in it. Each is a function of tenantry_lookup,
-- which can read only the columns that these functions need.

-- Returns the tenant with exactly this id or slug.
--
-- Decides: a name finds one tenant, and only by its whole id or slug. Tenants cannot be
--     listed with it.
-- Called by: src/tenants/mod.rs.
-- In SQL because: security definer, it reads across tenants. One round trip.
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

-- Returns the tenants that a sign-in by email without a tenant may mean.
--
-- Decides: the active tenants that have an active user with this email. Verified addresses
--     come first, then older users. At most three tenants. With p_only_verified, addresses
--     that are not verified do not count.
-- Called by: src/tenants/mod.rs.
-- In SQL because: security definer, it reads across tenants.
create function sign_in_tenants(p_email_lookup bytea, p_only_verified boolean)
    returns table (tenant_id uuid)
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select u.tenant_id
    from users u
    join tenants t on t.tenant_id = u.tenant_id
    where u.email_lookup = p_email_lookup
      -- false < true. In this form the index users_email_candidates_idx answers the
      -- condition: addresses that others registered and nobody verified are not read.
      and u.email_verified >= p_only_verified
      and u.state = 'active' and t.state = 'active'
    order by u.email_verified desc, u.created_at, u.user_id
    limit 3;
end;

-- Returns a page of all tenants, in the order of their ids.
--
-- Decides: only a transaction that works in the platform tenant sees other tenants. For any
--     other it returns nothing.
-- Called by: src/tenants/store.rs.
-- In SQL because: security definer, it reads across tenants.
create function list_tenants(p_after uuid, p_limit bigint, p_state text, p_slug_like text)
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
    order by t.tenant_id
    limit p_limit;
end;

-- Returns every tenant that has or had an audit trail, also deleted ones.
--
-- Decides: as list_tenants, only the platform tenant sees them.
-- Called by: src/audit/verify.rs.
-- In SQL because: security definer, it reads across tenants.
create function audited_tenants() returns setof uuid
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select found.tenant_id
    from (
        select e.tenant_id from audit_events e
        union
        select c.tenant_id from audit_chain c
    ) found
    where exists (
        select from tenants p where p.tenant_id = current_tenant() and p.is_platform
    )
    order by 1;
end;

revoke execute on function find_tenant(text) from public;
grant execute on function find_tenant(text) to tenantry_app;
revoke execute on function sign_in_tenants(bytea, boolean) from public;
grant execute on function sign_in_tenants(bytea, boolean) to tenantry_app;
revoke execute on function list_tenants(uuid, bigint, text, text) from public;
grant execute on function list_tenants(uuid, bigint, text, text) to tenantry_app;
revoke execute on function audited_tenants() from public;
grant execute on function audited_tenants() to tenantry_app;
grant create on schema public to tenantry_lookup;
alter function find_tenant(text) owner to tenantry_lookup;
alter function sign_in_tenants(bytea, boolean) owner to tenantry_lookup;
alter function list_tenants(uuid, bigint, text, text) owner to tenantry_lookup;
alter function audited_tenants() owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;
