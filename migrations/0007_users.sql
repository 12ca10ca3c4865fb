-- Subjects and users.

-- The subjects that can have roles, of each kind. The triggers of users and
-- service_accounts maintain this table.
create table subjects (
    tenant_id  uuid not null,
    subject_id uuid not null,
    kind       text not null,
    constraint subjects_pkey primary key (tenant_id, subject_id),
    constraint subjects_tenant_fkey foreign key (tenant_id)
        references tenants (tenant_id) on delete cascade,
    constraint subjects_kind_check check (kind in ('user', 'service_account'))
);

alter table subjects enable row level security;
alter table subjects force row level security;
create policy subjects_of_tenant on subjects
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
grant select, insert, update, delete on subjects to tenantry_app;

-- Inserts the subject of a new row, and deletes the subject of a deleted row. Arguments of
-- the trigger: the kind of the subject, and the column with its id.
--
-- Decides: a user and a service account of one tenant never have the same id. The role
--     assignments of a deleted subject are deleted with it (role_assignments_subject_fkey).
-- Called by: the triggers users_subject_made, users_subject_gone,
--     service_accounts_subject_made and service_accounts_subject_gone.
-- In SQL because: with a trigger, no statement can create a user without its subject.
create function keep_subject() returns trigger
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
declare
    kept jsonb := to_jsonb(case when tg_op = 'DELETE' then old else new end);
    tenant uuid := kept ->> 'tenant_id';
    subject uuid := kept ->> tg_argv[1];
begin
    if tg_op = 'DELETE' then
        delete from subjects where tenant_id = tenant and subject_id = subject;
        return null;
    end if;
    insert into subjects (tenant_id, subject_id, kind) values (tenant, subject, tg_argv[0]);
    return new;
end $$;

create table users (
    tenant_id       uuid        not null,
    user_id         uuid        not null,
    -- The email and the display name, sealed under the tenant's data key.
    profile         bytea       not null,
    -- Keyed hashes of the normalised email (NFKC, lower case). email_index finds a user
    -- within its tenant, email_lookup across tenants.
    email_index     bytea       not null,
    email_lookup    bytea       not null,
    state           text        not null default 'active',
    email_verified  boolean     not null default false,
    version         bigint      not null default 1,
    -- The last sign-in; -infinity before the first one, so that the row has a place in the
    -- order. A sign-in changes neither version nor updated_at.
    last_sign_in_at timestamptz not null default '-infinity',
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    constraint users_pkey primary key (tenant_id, user_id),
    constraint users_tenant_fkey foreign key (tenant_id)
        references tenants (tenant_id) on delete cascade,
    constraint users_email_key unique (tenant_id, email_index),
    constraint users_state_check check (state in ('active', 'disabled'))
);

-- For a list in the order of the last sign-in.
create index users_last_sign_in_idx on users (tenant_id, last_sign_in_at, user_id);
-- For a sign-in by email without a tenant: the order of sign_in_tenants.
create index users_email_candidates_idx
    on users (email_lookup, email_verified desc, created_at, user_id);

alter table users enable row level security;
alter table users force row level security;
create policy users_of_tenant on users
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
create policy users_of_lookup on users for select to tenantry_lookup using (true);
grant select, insert, update, delete on users to tenantry_app;
grant select (tenant_id, user_id, email_lookup, state, email_verified, created_at)
    on users to tenantry_lookup;

create trigger users_subject_made before insert on users
    for each row execute function keep_subject('user', 'user_id');
create trigger users_subject_gone after delete on users
    for each row execute function keep_subject('user', 'user_id');
create trigger users_change after update of state or delete on users
    for each row execute function record_change('user', 'user_id');
create trigger users_requests after delete on users
    referencing old table as gone
    for each statement execute function forget_requests('user_id');
-- Another trigger of this table is in 0008_passwords.sql.
