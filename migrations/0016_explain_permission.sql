-- Returns what a decision about one subject depends on, with what explains it. No row for an
-- unknown tenant.
--
-- assignments     The assignments whose role permits the action, also expired ones. Each has
--                 the first of p_forms that its role permits.
-- missing_roles   The p_roles lowest roles that would permit the action and that are not in
--                 `assignments`.
--
-- Decides: the order of the explanation, and which roles it suggests.
--     src/permissions/explain.rs makes the decision from the same read.
-- Called by: src/permissions/store.rs.
-- In SQL because: one round trip and one snapshot, so that decision and explanation agree.
create function explained_standing(
    p_tenant uuid, p_user uuid, p_session uuid, p_forms text[], p_roles bigint
)
    returns table (
        tenant_state text, user_state text, session_live boolean,
        assignments jsonb, missing_roles jsonb, snapshot_xmax xid8
    )
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    perform set_config('tenantry.tenant', p_tenant::text, true);
    return query
    with permitting as materialized (
        select r.role_id, r.name, r.level, (
            select f.form from unnest(p_forms) with ordinality f (form, nth)
            where f.form = any (r.permissions) order by f.nth limit 1
        ) as permission
        from roles r
        where r.tenant_id = p_tenant and r.permissions && p_forms
    ), given as materialized (
        select a.assignment_id, a.scope, extract(epoch from a.expires_at)::bigint as ends,
            r.role_id, r.name, r.level, r.permission
        from role_assignments a
        join permitting r on r.role_id = a.role_id
        where a.tenant_id = p_tenant and a.user_id = p_user
    )
    select t.state,
        coalesce(
            (select u.state from users u where u.tenant_id = p_tenant and u.user_id = p_user),
            (select 'active' from service_accounts a
                where a.tenant_id = p_tenant and a.account_id = p_user)
        ),
        case when p_session is not null then exists (
            select from sessions s
            where s.tenant_id = p_tenant and s.session_id = p_session and s.user_id = p_user
              and s.revoked_at is null and s.expires_at > now()
        ) or exists (
            select from api_keys k
            where k.tenant_id = p_tenant and k.key_id = p_session and k.account_id = p_user
              and k.revoked_at is null and k.expires_at > now()
        ) end,
        coalesce((
            select jsonb_agg(jsonb_build_object(
                'assignment_id', g.assignment_id, 'role_id', g.role_id, 'role_name', g.name,
                'level', g.level, 'permission', g.permission, 'scope', g.scope,
                'expires_at', g.ends
            ) order by g.name, g.assignment_id)
            from given g
        ), '[]'),
        coalesce((
            select jsonb_agg(to_jsonb(m)) from (
                select r.role_id, r.name as role_name, r.level, r.permission
                from permitting r
                where r.role_id not in (select g.role_id from given g)
                order by r.level, r.name
                limit p_roles
            ) m
        ), '[]'),
        pg_snapshot_xmax(pg_current_snapshot())
    from tenants t
    where t.tenant_id = p_tenant;
end $$;

revoke execute on function explained_standing(uuid, uuid, uuid, text[], bigint) from public;
grant execute on function explained_standing(uuid, uuid, uuid, text[], bigint) to tenantry_app;
