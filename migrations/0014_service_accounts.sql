-- What signs in by itself: another service, a job, a pipeline.
create table service_accounts (
    tenant_id   uuid        not null,
    account_id  uuid        not null,
    name        text        not null,
    description text        not null default '',
    version     bigint      not null default 1,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    constraint service_accounts_pkey primary key (tenant_id, account_id),
    constraint service_accounts_tenant_fkey foreign key (tenant_id)
        references tenants (tenant_id) on delete cascade,
    constraint service_accounts_name_key unique (tenant_id, name)
);

alter table service_accounts enable row level security;
alter table service_accounts force row level security;
create policy service_accounts_of_tenant on service_accounts
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
grant select, insert, update, delete on service_accounts to tenantry_app;

create trigger service_accounts_subject_made before insert on service_accounts
    for each row execute function keep_subject('service_account', 'account_id');
create trigger service_accounts_subject_gone after delete on service_accounts
    for each row execute function keep_subject('service_account', 'account_id');
create trigger service_accounts_change after delete on service_accounts
    for each row execute function record_change('user', 'account_id');

-- What a service account proves itself with: one of a secret, a key pair and a
-- certificate. It takes the part that a session has for a user: its id is the `sid` of
-- the tokens that it leads to, and they end with it.
create table api_keys (
    tenant_id        uuid        not null,
    key_id           uuid        not null,
    account_id       uuid        not null,
    name             text        not null default '',
    -- SHA-256 of a secret's 256 random bits: there is nothing to guess.
    secret_hash      bytea,
    -- A public key, in PEM.
    public_key       text,
    -- A name in a client's certificate: of a host, or a URI.
    certificate_name text,
    -- The request that made it.
    request_id       text,
    created_at       timestamptz not null default now(),
    expires_at       timestamptz not null,
    last_used_at     timestamptz,
    revoked_at       timestamptz,
    constraint api_keys_pkey primary key (tenant_id, key_id),
    constraint api_keys_account_fkey foreign key (tenant_id, account_id)
        references service_accounts (tenant_id, account_id) on delete cascade,
    constraint api_keys_secret_key unique (tenant_id, secret_hash),
    constraint api_keys_request_key unique (tenant_id, account_id, request_id),
    constraint api_keys_kind_check
        check (num_nonnulls(secret_hash, public_key, certificate_name) = 1)
);

-- In the order in which an account's keys are listed.
create index api_keys_account_idx on api_keys (tenant_id, account_id, key_id);
-- A certificate is one account's.
create unique index api_keys_certificate_key on api_keys (tenant_id, certificate_name)
    where revoked_at is null;

alter table api_keys enable row level security;
alter table api_keys force row level security;
create policy api_keys_of_tenant on api_keys
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
grant select, insert, update, delete on api_keys to tenantry_app;

create trigger api_keys_change after update of revoked_at on api_keys
    for each row execute function record_change('session', 'key_id');

-- The assertions that were exchanged for a token: each works once (RFC 7523, 3).
create table spent_assertions (
    tenant_id  uuid        not null,
    key_id     uuid        not null,
    -- SHA-256 of its `jti`.
    jti_hash   bytea       not null,
    expires_at timestamptz not null,
    constraint spent_assertions_pkey primary key (tenant_id, key_id, jti_hash),
    constraint spent_assertions_key_fkey foreign key (tenant_id, key_id)
        references api_keys (tenant_id, key_id) on delete cascade
);

alter table spent_assertions enable row level security;
alter table spent_assertions force row level security;
create policy spent_assertions_of_tenant on spent_assertions
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
grant select, insert, delete on spent_assertions to tenantry_app;
