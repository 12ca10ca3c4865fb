-- Spends a refresh token (RFC 9700, section 4.14.2).
--
-- Decides, in this order, the outcome:
--     ended      The session, its user or its tenant is not active. The session or the
--                token has expired by the database's clock: the leeway for the time in
--                signed tokens must not extend it.
--     rotated    The token is the newest of the session. Its successor is written.
--     replayed   The token was spent by the same request (p_request_id, the idempotency
--                id) within p_replay_window, and its successor is unused. The successor is
--                returned again.
--     reused     The token was spent in another way. The session is revoked, and the audit
--                trail records it.
--     With `rotated` and `replayed`, the other columns are the successor's; else null.
-- Called by: src/sign_in/refresh.rs.
-- In SQL because: one statement, which locks the session's row. The outcome is durable before
--     the client learns it, and a cancelled call leaves nothing half done.
create function rotate_session(
    p_tenant uuid, p_user uuid, p_session uuid, p_jti text, p_request_id text,
    p_refresh_jti text, p_access_jti text,
    p_refresh_kid text, p_access_kid text,
    p_refresh_lifetime interval, p_access_lifetime interval, p_replay_window interval,
    p_event uuid, p_correlation_id text, p_ip bytea
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
    -- Tokens count whole seconds.
    moment timestamptz := date_trunc('second', clock_timestamp());
begin
    perform set_config('tenantry.tenant', p_tenant::text, true);

    select * into s from sessions
    where tenant_id = p_tenant and session_id = p_session and user_id = p_user
    for update;

    -- Time passed while the statement waited for the lock.
    moment := date_trunc('second', clock_timestamp());

    if s.session_id is null or s.revoked_at is not null
        or s.expires_at <= moment or s.refresh_expires_at <= moment
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
        values (p_tenant, p_event, 'refresh_reuse', p_user, p_session, p_correlation_id, p_ip);
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

revoke execute on function rotate_session(
    uuid, uuid, uuid, text, text, text, text, text, text,
    interval, interval, interval, uuid, text, bytea
) from public;
grant execute on function rotate_session(
    uuid, uuid, uuid, text, text, text, text, text, text,
    interval, interval, interval, uuid, text, bytea
) to tenantry_app;
