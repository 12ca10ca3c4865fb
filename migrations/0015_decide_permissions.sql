-- The data that decisions about permissions are made from.

-- Returns all that decisions about some subjects depend on. No row for an unknown tenant. A
-- subject that does not exist is not among `subjects`. Each role is listed once, also when
-- several of the subjects have it. session_live is null when p_session is null; for a
-- service account, the session is the API key that it signed in with. All is read in one
-- snapshot. Every change that the snapshot saw is of a transaction below snapshot_xmax.
--
-- Decides: which assignments count (those that have not expired), whether a session or an
--     API key is live (neither revoked nor expired), and that a service account is always
--     active. src/permissions/decide.rs makes the decision from this.
-- Called by: src/permissions/store.rs.
-- In SQL because: one round trip. It sets the tenant of the transaction itself.
create function subject_standings(p_tenant uuid, p_users uuid[], p_session uuid)
    returns table (
        tenant_slug text, tenant_state text, is_platform boolean, api_key_bearer boolean,
        session_live boolean, roles jsonb, subjects jsonb, snapshot_xmax xid8
    )
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    perform set_config('tenantry.tenant', p_tenant::text, true);
    return query
    with held as materialized (
        -- The assignment's id is for the log, where its scope is unreadable.
        select a.user_id, a.assignment_id, a.role_id, a.scope,
            extract(epoch from a.expires_at)::bigint as ends
        from role_assignments a
        where a.tenant_id = p_tenant and a.user_id = any (p_users)
          and (a.expires_at is null or a.expires_at > now())
    ), by_user as (
        select h.user_id, jsonb_agg(jsonb_build_object(
            'assignment_id', h.assignment_id, 'role_id', h.role_id, 'scope', h.scope,
            'expires_at', h.ends
        )) as grants
        from held h group by h.user_id
    )
    select t.slug, t.state, t.is_platform,
        coalesce(t.settings -> 'api_key_bearer' = 'true', false),
        case when p_session is not null then exists (
            select from sessions s
            where s.tenant_id = p_tenant and s.session_id = p_session
              and s.user_id = any (p_users)
              and s.revoked_at is null and s.expires_at > now()
        ) or exists (
            select from api_keys k
            where k.tenant_id = p_tenant and k.key_id = p_session
              and k.account_id = any (p_users)
              and k.revoked_at is null and k.expires_at > now()
        ) end,
        coalesce((
            select jsonb_agg(jsonb_build_object(
                'role_id', r.role_id, 'name', r.name, 'level', r.level,
                'permissions', r.permissions
            ))
            from roles r
            where r.tenant_id = p_tenant and r.role_id in (select h.role_id from held h)
        ), '[]'),
        coalesce((
            select jsonb_agg(jsonb_build_object(
                'user_id', u.user_id, 'state', u.state, 'grants', coalesce(b.grants, '[]')
            ))
            from (
                select user_id, state from users
                where tenant_id = p_tenant and user_id = any (p_users)
                union all
                select account_id, 'active' from service_accounts
                where tenant_id = p_tenant and account_id = any (p_users)
            ) u
            left join by_user b on b.user_id = u.user_id
        ), '[]'),
        pg_snapshot_xmax(pg_current_snapshot())
    from tenants t
    where t.tenant_id = p_tenant;
end $$;

-- Returns the names of the roles that a subject has now, sorted.
--
-- Decides: which roles an access token names. An assignment that has expired or that the
--     service cannot read does not count.
-- Called by: open_session, rotate_session, src/sign_in/api_key.rs.
-- In SQL because: open_session and rotate_session return it in their one round trip.
create function role_names(p_tenant uuid, p_user uuid) returns text[]
    language sql stable
    set search_path = pg_catalog, public, pg_temp
return array(
    select distinct r.name
    from role_assignments a
    join roles r on r.tenant_id = a.tenant_id and r.role_id = a.role_id
    where a.tenant_id = p_tenant and a.user_id = p_user
      and (a.expires_at is null or a.expires_at > now())
      and scope_is_readable(a.scope)
    order by r.name
);

revoke execute on function subject_standings(uuid, uuid[], uuid) from public;
grant execute on function subject_standings(uuid, uuid[], uuid) to tenantry_app;
revoke execute on function role_names(uuid, uuid) from public;
grant execute on function role_names(uuid, uuid) to tenantry_app;
