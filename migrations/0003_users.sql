-- Whoever can hold roles, of any kind: each has a table of its own, whose triggers
-- keep this one.
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

-- tg_argv: the kind, the column that has the id.
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
    tenant_id      uuid        not null,
    user_id        uuid        not null,
    -- The email and the name, sealed under the tenant's data key.
    profile        bytea       not null,
    -- What the email is found by: keyed hashes of the one form that is compared
    -- (NFKC, lower case), within the tenant and across tenants.
    email_index    bytea       not null,
    email_lookup   bytea       not null,
    state          text        not null default 'active',
    email_verified boolean     not null default false,
    version        bigint      not null default 1,
    created_at     timestamptz not null default now(),
    updated_at     timestamptz not null default now(),
    constraint users_pkey primary key (tenant_id, user_id),
    constraint users_tenant_fkey foreign key (tenant_id)
        references tenants (tenant_id) on delete cascade,
    constraint users_email_key unique (tenant_id, email_index),
    constraint users_state_check check (state in ('active', 'disabled'))
);

create trigger users_subject_made before insert on users
    for each row execute function keep_subject('user', 'user_id');
create trigger users_subject_gone after delete on users
    for each row execute function keep_subject('user', 'user_id');

-- For sign-in by email alone, which looks across tenants.
create index users_email_across_tenants_idx on users (email_lookup);

alter table users enable row level security;
alter table users force row level security;
create policy users_of_tenant on users
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
grant select, insert, update, delete on users to tenantry_app;

-- Apart from users, so that no list of users ever reads a hash.
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
