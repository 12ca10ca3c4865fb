-- The token of the last mail to a user that asked for a new password: as a hash, and
-- good until it is used, too old, replaced, or the password has changed.
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

-- Whatever changes a password, no earlier mail can change it again.
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
