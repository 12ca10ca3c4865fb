-- All that decisions about some subjects depend on, in one round trip: it sets
-- the transaction's tenant itself. No row for an unknown tenant; whoever is unknown
-- is not among the subjects. Each role comes once, however many of the subjects have
-- it. session_live is null when no session was asked about; a service account's is
-- the key that it signed in with. All is of one snapshot, below whose xmax lies
-- everything that it saw.
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
        select a.user_id, a.role_id, a.scope, extract(epoch from a.expires_at)::bigint as ends
        from role_assignments a
        where a.tenant_id = p_tenant and a.user_id = any (p_users)
          and (a.expires_at is null or a.expires_at > now())
    ), by_user as (
        select h.user_id, jsonb_agg(jsonb_build_object(
            'role_id', h.role_id, 'scope', h.scope, 'expires_at', h.ends
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

-- What a decision about one subject depends on, with all that explains it: the
-- assignments, also those that have ended, whose role permits it by one of
-- p_forms, the first that does; and where they are asked for, the lowest roles
-- that would permit it and that the subject was never given. No row for an
-- unknown tenant.
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

-- The names of the roles that a user has now, for its access tokens.
create function role_names(p_tenant uuid, p_user uuid) returns text[]
    language sql stable
    set search_path = pg_catalog, public, pg_temp
return array(
    select distinct r.name
    from role_assignments a
    join roles r on r.tenant_id = a.tenant_id and r.role_id = a.role_id
    where a.tenant_id = p_tenant and a.user_id = p_user
      and (a.expires_at is null or a.expires_at > now())
    order by r.name
);

-- Spends a refresh token: one statement, so that it is all committed or
-- nothing is, whether or not anyone still waits for the answer.
--
-- outcome: rotated   the successor is written
--          replayed  the same request again; the columns are the successor's
--          reused    the token was spent: the session is revoked and audited
--          ended     the session, its user or its tenant is not in force
create function rotate_session(
    p_tenant uuid, p_user uuid, p_session uuid, p_jti text, p_request_id text,
    p_refresh_jti text, p_access_jti text,
    p_refresh_kid text, p_access_kid text,
    p_refresh_lifetime interval, p_access_lifetime interval, p_replay_window interval,
    p_event uuid, p_trace_id text, p_ip bytea
)
    returns table (
        outcome text, refresh_jti text, access_jti text, refresh_kid text, access_kid text,
        issued_at timestamptz, refresh_expires_at timestamptz, access_expires_at timestamptz,
        roles text[]
    )
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
#variable_conflict use_column
declare
    s sessions;
    verdict text;
    -- Tokens count in whole seconds.
    moment timestamptz := date_trunc('second', clock_timestamp());
begin
    perform set_config('tenantry.tenant', p_tenant::text, true);

    select * into s from sessions
    where tenant_id = p_tenant and session_id = p_session and user_id = p_user
    for update;

    -- The clock moved while this waited for the lock.
    moment := date_trunc('second', clock_timestamp());

    if s.session_id is null or s.revoked_at is not null or s.expires_at <= moment
        or not exists (select from users u
            where u.tenant_id = p_tenant and u.user_id = p_user and u.state = 'active')
        or not exists (select from tenants t
            where t.tenant_id = p_tenant and t.state = 'active')
    then
        verdict := 'ended';
    elsif s.refresh_jti = p_jti then
        verdict := 'rotated';
        update sessions set
            refresh_jti = p_refresh_jti,
            refresh_issued_at = moment,
            refresh_expires_at = least(moment + p_refresh_lifetime, s.expires_at),
            refresh_kid = p_refresh_kid,
            access_jti = p_access_jti,
            access_expires_at = least(moment + p_access_lifetime, s.expires_at),
            access_kid = p_access_kid,
            spent_jti = p_jti,
            spent_request_id = p_request_id,
            last_used_at = clock_timestamp()
        where tenant_id = p_tenant and session_id = p_session
        returning * into s;
    elsif s.spent_jti = p_jti and s.spent_request_id = p_request_id
        and s.last_used_at > clock_timestamp() - p_replay_window
    then
        verdict := 'replayed';
    else
        verdict := 'reused';
        update sessions set revoked_at = clock_timestamp(), revoke_reason = 'refresh_reuse'
        where tenant_id = p_tenant and session_id = p_session;
        insert into audit_events
            (tenant_id, event_id, kind, target_id, session_id, request_id, ip)
        values (p_tenant, p_event, 'refresh_reuse', p_user, p_session, p_trace_id, p_ip);
    end if;

    if verdict in ('ended', 'reused') then
        return query select verdict, null::text, null::text, null::text, null::text,
            null::timestamptz, null::timestamptz, null::timestamptz, null::text[];
        return;
    end if;

    return query select verdict, s.refresh_jti, s.access_jti, s.refresh_kid, s.access_kid,
        s.refresh_issued_at, s.refresh_expires_at, s.access_expires_at,
        role_names(p_tenant, p_user);
end $$;

revoke execute on function role_names(uuid, uuid) from public;
grant execute on function role_names(uuid, uuid) to tenantry_app;
revoke execute on function subject_standings(uuid, uuid[], uuid) from public;
grant execute on function subject_standings(uuid, uuid[], uuid) to tenantry_app;
revoke execute on function explained_standing(uuid, uuid, uuid, text[], bigint) from public;
grant execute on function explained_standing(uuid, uuid, uuid, text[], bigint) to tenantry_app;
revoke execute on function rotate_session(
    uuid, uuid, uuid, text, text, text, text, text, text,
    interval, interval, interval, uuid, text, bytea
) from public;
grant execute on function rotate_session(
    uuid, uuid, uuid, text, text, text, text, text, text,
    interval, interval, interval, uuid, text, bytea
) to tenantry_app;
