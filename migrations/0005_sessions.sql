create table sessions (
    tenant_id          uuid        not null,
    session_id         uuid        not null,
    user_id            uuid        not null,
    -- The device's name, the address and the user agent, sealed under the tenant's
    -- data key.
    client             bytea       not null,
    -- The refresh token in force, as all that it takes to sign it again; the
    -- token itself is stored nowhere.
    refresh_jti        text        not null,
    refresh_issued_at  timestamptz not null,
    refresh_expires_at timestamptz not null,
    refresh_kid        text        not null,
    -- The access token that was handed out with it, likewise.
    access_jti         text        not null,
    access_expires_at  timestamptz not null,
    access_kid         text        not null,
    -- The refresh token before it and the request that spent it: the one case
    -- in which a spent token is answered again.
    spent_jti          text,
    spent_request_id   text,
    created_at         timestamptz not null default now(),
    last_used_at       timestamptz not null default now(),
    -- The end whatever is refreshed.
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
