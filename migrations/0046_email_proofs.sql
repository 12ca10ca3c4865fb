-- no-transaction
-- Links that verify or change an email, and registrations that wait for the proof of an email.
--
-- Each block is a transaction of its own, so that no call waits for two tables
-- (README.md). An attempt that fails is repeated from the start.

-- A link is for one address. A column that is null, as in the rows of an earlier release, means the
-- address of the user. content has the new address of an email_change, sealed. A check that is not
-- valid yet holds for new rows, and the rows of an earlier release passed a stricter check.
begin;
alter table mail_links
    add column if not exists address_index bytea,
    add column if not exists content bytea,
    drop constraint if exists mail_links_purpose_check,
    add constraint mail_links_purpose_check
        check (purpose in ('password_reset', 'email_verification', 'email_change')) not valid;
commit;

begin;
alter table mail_outbox
    drop constraint if exists mail_outbox_kind_check,
    add constraint mail_outbox_kind_check check (kind in (
        'reset_request', 'password_reset', 'email_changed',
        'verification_request', 'email_verification', 'email_change', 'registration'
    )) not valid;
commit;

-- Registrations in existing tenants that wait for VerifyEmail. There is no user yet, so a
-- registration takes the email from nobody. The link of a registration is in its row.
begin;
create table if not exists registrations (
    tenant_id  uuid        not null,
    -- The id that the user will have.
    user_id    uuid        not null,
    token_hash bytea       not null,
    -- The email, the display name and the password hash, sealed.
    content    bytea       not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    constraint registrations_pkey primary key (tenant_id, user_id),
    constraint registrations_tenant_fkey foreign key (tenant_id)
        references tenants (tenant_id) on delete cascade
);
alter table registrations enable row level security;
alter table registrations force row level security;
drop policy if exists registrations_of_tenant on registrations;
create policy registrations_of_tenant on registrations
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
drop policy if exists registrations_of_trim on registrations;
create policy registrations_of_trim on registrations to tenantry_lookup
    using (expires_at <= now());
create or replace trigger registrations_tenant_exists after insert on registrations
    for each row execute function refuse_deleted_tenant('registrations_tenant_fkey');
grant select, insert, update, delete on registrations to tenantry_app;
grant select, delete on registrations to tenantry_lookup;
commit;
