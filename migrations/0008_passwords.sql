-- Password hashes, and the links in mails.

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

-- The link in the last mail of a purpose to a user, as the hash of its token. A link ends when
-- it is used, expired or replaced, and by the triggers below.
create table mail_links (
    tenant_id  uuid        not null,
    user_id    uuid        not null,
    purpose    text        not null,
    token_hash bytea       not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    constraint mail_links_pkey primary key (tenant_id, user_id, purpose),
    constraint mail_links_user_fkey foreign key (tenant_id, user_id)
        references users (tenant_id, user_id) on delete cascade,
    constraint mail_links_purpose_check check (purpose in ('password_reset'))
);

alter table mail_links enable row level security;
alter table mail_links force row level security;
create policy mail_links_of_tenant on mail_links
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
grant select, insert, update, delete on mail_links to tenantry_app;

-- Deletes the links of a user.
--
-- Decides: a link ends when the password, the email or the state of its user changes. A
--     link proves that its bearer reads the address that it was sent to, and is for a user
--     that may sign in. A link that ended by a disabling does not work again when the user
--     is enabled.
-- Called by: the triggers credentials_links and users_links.
-- In SQL because: with a trigger, no statement can change a password and keep the link.
create function end_mail_links() returns trigger
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    delete from mail_links where tenant_id = new.tenant_id and user_id = new.user_id;
    return null;
end $$;

create trigger credentials_links after insert or update of password_hash on credentials
    for each row execute function end_mail_links();
create trigger users_links after update of email_index, state on users
    for each row
    when (old.email_index is distinct from new.email_index or old.state is distinct from new.state)
    execute function end_mail_links();
