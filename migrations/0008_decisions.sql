-- All that a decision about a subject depends on, in one round trip: it sets
-- the transaction's tenant itself. No row for an unknown tenant; user_state is
-- null for an unknown user; session_live is null when no session was asked
-- about. All is of one snapshot, below whose xmax lies everything that it saw.
create function subject_standing(p_tenant uuid, p_user uuid, p_session uuid)
    returns table (
        tenant_slug text, tenant_state text, is_platform boolean,
        user_state text, session_live boolean, grants jsonb, snapshot_xmax xid8
    )
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    perform set_config('tenantry.tenant', p_tenant::text, true);
    return query
    select t.slug, t.state, t.is_platform, u.state,
        case when p_session is not null then exists (
            select from sessions s
            where s.tenant_id = p_tenant and s.session_id = p_session and s.user_id = p_user
              and s.revoked_at is null and s.expires_at > now()
        ) end,
        coalesce((
            select jsonb_agg(jsonb_build_object(
                'assignment_id', a.assignment_id, 'role_id', r.role_id, 'role_name', r.name,
                'level', r.level, 'permissions', r.permissions, 'scope', a.scope,
                'expires_at', extract(epoch from a.expires_at)::bigint
            ) order by r.name, a.assignment_id)
            from role_assignments a
            join roles r on r.tenant_id = a.tenant_id and r.role_id = a.role_id
            where a.tenant_id = p_tenant and a.user_id = p_user
              and (a.expires_at is null or a.expires_at > now())
        ), '[]'),
        pg_snapshot_xmax(pg_current_snapshot())
    from tenants t
    left join users u on u.tenant_id = t.tenant_id and u.user_id = p_user
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
    p_event uuid, p_trace_id text, p_ip inet
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
revoke execute on function subject_standing(uuid, uuid, uuid) from public;
grant execute on function subject_standing(uuid, uuid, uuid) to tenantry_app;
revoke execute on function rotate_session(
    uuid, uuid, uuid, text, text, text, text, text, text,
    interval, interval, interval, uuid, text, inet
) from public;
grant execute on function rotate_session(
    uuid, uuid, uuid, text, text, text, text, text, text,
    interval, interval, interval, uuid, text, inet
) to tenantry_app;
