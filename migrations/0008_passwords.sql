-- Password hashes, and tokens to reset a password.

-- A table of its own, so that no list of users reads a hash.
create table credentials (
    tenant_id     uuid        not null,
    user_id       uuid        not null,
    password_hash text        not null,
    updated_at    timestamptz not null default now(),
    constraint credentials_pkey primary key (tenant_id, user_id),
    constraint credentials_user_fkey foreign key (tenant_id, user_id)
        references users (tenant_id, user_id) on delete cascade
);

alter table credentials enable row level security;
alter table credentials force row level security;
create policy credentials_of_tenant on credentials
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
grant select, insert, update, delete on credentials to tenantry_app;

-- The token of the last password reset mail of a user, as a hash. A token ends when it is
-- used, expired or replaced, and by the triggers below.
create table password_resets (
    tenant_id  uuid        not null,
    user_id    uuid        not null,
    token_hash bytea       not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    constraint password_resets_pkey primary key (tenant_id, user_id),
    constraint password_resets_user_fkey foreign key (tenant_id, user_id)
        references users (tenant_id, user_id) on delete cascade
);

alter table password_resets enable row level security;
alter table password_resets force row level security;
create policy password_resets_of_tenant on password_resets
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
grant select, insert, update, delete on password_resets to tenantry_app;

-- Deletes the password reset token of a user.
--
-- Decides: a token ends when the password, the email or the state of its user changes. A
--     token proves that its bearer reads the address that it was sent to, and is for a user
--     that may sign in. A token that ended by a disabling does not work again when the user
--     is enabled.
-- Called by: the triggers credentials_resets and users_resets.
-- In SQL because: with a trigger, no statement can change a password and keep the token.
create function end_password_resets() returns trigger
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    delete from password_resets where tenant_id = new.tenant_id and user_id = new.user_id;
    return null;
end $$;

create trigger credentials_resets after insert or update of password_hash on credentials
    for each row execute function end_password_resets();
create trigger users_resets after update of email_index, state on users
    for each row
    when (old.email_index is distinct from new.email_index or old.state is distinct from new.state)
    execute function end_password_resets();
