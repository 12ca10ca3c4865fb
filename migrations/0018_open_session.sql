-- Opens a session after a proof was verified: a password. Returns the names of the user's roles, or
-- no row when it opened no session.
--
-- Decides: a session opens only while the user and the tenant are active and the verified
--     hash is still the user's. All three may change while the service computes the hash.
--     With p_new_hash it also replaces the hash. It records the sign-in in the user's row
--     and in the audit trail.
-- Called by: src/sessions/open.rs.
-- In SQL because: one round trip, and one statement. It is committed as a whole or not at
--     all, also when the client cancels the call. It takes its locks in the order users,
--     credentials.
create function open_session(
    p_tenant uuid, p_user uuid, p_amr text[], p_verified_hash text, p_new_hash text,
    p_session uuid, p_client bytea,
    p_refresh_jti text, p_refresh_kid text, p_refresh_expires_at timestamptz,
    p_access_jti text, p_access_kid text, p_access_expires_at timestamptz,
    p_issued_at timestamptz, p_expires_at timestamptz,
    p_event uuid, p_correlation_id text, p_ip bytea
)
    returns table (roles text[])
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    perform set_config('tenantry.tenant', p_tenant::text, true);

    -- The lock serialises this with a statement that disables the user. Either that
    -- statement sees the session and ends it, or this one sees the disabled user. A
    -- suspension ends no sessions, so the tenant needs no lock.
    perform from users u
        join tenants t on t.tenant_id = u.tenant_id
        where u.tenant_id = p_tenant and u.user_id = p_user
          and u.state = 'active' and t.state = 'active'
        for no key update of u;
    if not found then
        return;
    end if;

    -- The same for a change of the password. A call that replaces the hash takes the
    -- stronger lock at once: two calls that shared the lock would wait for each other.
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

    update users u set last_sign_in_at = now()
    where u.tenant_id = p_tenant and u.user_id = p_user;

    insert into sessions (
        tenant_id, session_id, user_id, client, amr,
        refresh_jti, refresh_kid, refresh_issued_at, refresh_expires_at,
        access_jti, access_kid, access_expires_at, expires_at
    ) values (
        p_tenant, p_session, p_user, p_client, p_amr,
        p_refresh_jti, p_refresh_kid, p_issued_at, p_refresh_expires_at,
        p_access_jti, p_access_kid, p_access_expires_at, p_expires_at
    );

    insert into audit_events
        (tenant_id, event_id, kind, actor_tenant_id, actor_id, target_id, session_id,
         request_id, ip)
    values (p_tenant, p_event, 'signed_in', p_tenant, p_user, p_user, p_session,
        p_correlation_id, p_ip);

    return query select role_names(p_tenant, p_user);
end $$;

revoke execute on function open_session(
    uuid, uuid, text[], text, text, uuid, bytea, text, text, timestamptz,
    text, text, timestamptz, timestamptz, timestamptz, uuid, text, bytea
) from public;
grant execute on function open_session(
    uuid, uuid, text[], text, text, uuid, bytea, text, text, timestamptz,
    text, text, timestamptz, timestamptz, timestamptz, uuid, text, bytea
) to tenantry_app;
