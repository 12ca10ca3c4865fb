create table sessions (
    tenant_id          uuid        not null,
    session_id         uuid        not null,
    user_id            uuid        not null,
    -- The device name, the address and the user agent, sealed under the tenant's data key.
    client             bytea       not null,
    -- The authentication methods of the sign-in (RFC 8176).
    amr                text[]      not null,
    -- The newest refresh token, as the values that sign it again. The token itself is not
    -- stored.
    refresh_jti        text        not null,
    refresh_issued_at  timestamptz not null,
    refresh_expires_at timestamptz not null,
    refresh_kid        text        not null,
    -- The access token that was issued with it, in the same way.
    access_jti         text        not null,
    access_expires_at  timestamptz not null,
    access_kid         text        not null,
    -- The refresh token before the newest, and the idempotency id of the request that spent
    -- it. rotate_session answers a replay of that request with the same tokens.
    spent_jti          text,
    spent_request_id   text,
    created_at         timestamptz not null default now(),
    last_used_at       timestamptz not null default now(),
    -- The end of the session. A refresh does not move it.
    expires_at         timestamptz not null,
    revoked_at         timestamptz,
    revoke_reason      text,
    constraint sessions_pkey primary key (tenant_id, session_id),
    constraint sessions_user_fkey foreign key (tenant_id, user_id)
        references users (tenant_id, user_id) on delete cascade,
    constraint sessions_revoke_check check ((revoked_at is null) = (revoke_reason is null))
);

create index sessions_user_idx on sessions (tenant_id, user_id, session_id);

alter table sessions enable row level security;
alter table sessions force row level security;
create policy sessions_of_tenant on sessions
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
grant select, insert, update, delete on sessions to tenantry_app;

create trigger sessions_change after update of revoked_at on sessions
    for each row execute function record_change('session', 'session_id');

-- Refuses a new session in a suspended tenant.
--
-- Decides: no session begins after its tenant was suspended. open_session reads the tenant
--     and may then wait for the lock of its user, while the tenant is suspended. This
--     trigger reads the tenant again, with a newer snapshot.
-- Called by: the trigger sessions_tenant_active. src/sessions/open.rs knows the name of the
--     constraint in the error.
-- In SQL because: the check must run in the statement that inserts the session.
create function refuse_suspended() returns trigger
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    if not exists (
        select from tenants t where t.tenant_id = new.tenant_id and t.state = 'active'
    ) then
        raise exception 'the tenant is suspended'
            using errcode = 'check_violation', constraint = 'sessions_tenant_active';
    end if;
    return null;
end $$;

revoke execute on function refuse_suspended() from public;

create trigger sessions_tenant_active after insert on sessions
    for each row execute function refuse_suspended();
