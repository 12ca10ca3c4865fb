-- What a sign-in compares its password with, in one round trip. No row when
-- the tenant has no such user. It runs for whoever knows an email, so it gives
-- nothing that the service does not need.
create function sign_in_candidate(p_tenant uuid, p_email_index bytea)
    returns table (user_id uuid, active boolean, password_hash text)
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    perform set_config('tenantry.tenant', p_tenant::text, true);
    return query
    select u.user_id, u.state = 'active' and t.state = 'active', c.password_hash
    from users u
    join tenants t on t.tenant_id = u.tenant_id
    left join credentials c on c.tenant_id = u.tenant_id and c.user_id = u.user_id
    where u.tenant_id = p_tenant and u.email_index = p_email_index;
end $$;

-- Opens a session for a password that was verified: all of it in one statement,
-- so that it is all committed or nothing is. It opens none (no row) when the
-- user, the tenant or the password changed while the hash was computed.
create function open_session(
    p_tenant uuid, p_user uuid, p_verified_hash text, p_new_hash text,
    p_session uuid, p_client bytea,
    p_refresh_jti text, p_refresh_kid text, p_refresh_expires_at timestamptz,
    p_access_jti text, p_access_kid text, p_access_expires_at timestamptz,
    p_issued_at timestamptz, p_expires_at timestamptz,
    p_event uuid, p_trace_id text, p_ip bytea
)
    returns table (roles text[])
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    perform set_config('tenantry.tenant', p_tenant::text, true);

    -- The lock orders this against a disabling: either that sees the session, or
    -- this sees that. A suspension ends no sessions, so it needs none.
    perform from users u
        join tenants t on t.tenant_id = u.tenant_id
        where u.tenant_id = p_tenant and u.user_id = p_user
          and u.state = 'active' and t.state = 'active'
        for share of u;
    if not found then
        return;
    end if;

    -- Likewise against a change of the password. Who is to replace the hash takes
    -- the stronger lock at once: two that shared it would wait for each other.
    if p_new_hash is null then
        perform from credentials c
        where c.tenant_id = p_tenant and c.user_id = p_user
          and c.password_hash = p_verified_hash
        for share;
    else
        update credentials c set password_hash = p_new_hash, updated_at = now()
        where c.tenant_id = p_tenant and c.user_id = p_user
          and c.password_hash = p_verified_hash;
    end if;
    if not found then
        return;
    end if;

    insert into sessions (
        tenant_id, session_id, user_id, client,
        refresh_jti, refresh_kid, refresh_issued_at, refresh_expires_at,
        access_jti, access_kid, access_expires_at, expires_at
    ) values (
        p_tenant, p_session, p_user, p_client,
        p_refresh_jti, p_refresh_kid, p_issued_at, p_refresh_expires_at,
        p_access_jti, p_access_kid, p_access_expires_at, p_expires_at
    );

    insert into audit_events
        (tenant_id, event_id, kind, actor_tenant_id, actor_id, target_id, session_id,
         request_id, ip)
    values (p_tenant, p_event, 'signed_in', p_tenant, p_user, p_user, p_session,
        p_trace_id, p_ip);

    return query select role_names(p_tenant, p_user);
end $$;

revoke execute on function sign_in_candidate(uuid, bytea) from public;
grant execute on function sign_in_candidate(uuid, bytea) to tenantry_app;
revoke execute on function open_session(
    uuid, uuid, text, text, uuid, bytea, text, text, timestamptz,
    text, text, timestamptz, timestamptz, timestamptz, uuid, text, bytea
) from public;
grant execute on function open_session(
    uuid, uuid, text, text, uuid, bytea, text, text, timestamptz,
    text, text, timestamptz, timestamptz, timestamptz, uuid, text, bytea
) to tenantry_app;
