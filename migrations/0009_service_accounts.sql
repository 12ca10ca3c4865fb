-- Service accounts, their API keys, and the assertions that were used.

-- Subjects that are not people: another service, a job, a pipeline.
create table service_accounts (
    tenant_id   uuid        not null,
    account_id  uuid        not null,
    name        text        not null,
    -- The normalised name (src/api/names.rs): two accounts of a tenant cannot have the same.
    name_key    text,
    description text        not null default '',
    version     bigint      not null default 1,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    constraint service_accounts_pkey primary key (tenant_id, account_id),
    constraint service_accounts_tenant_fkey foreign key (tenant_id)
        references tenants (tenant_id) on delete cascade,
    constraint service_accounts_name_key unique (tenant_id, name)
);

create unique index service_accounts_name_key_idx on service_accounts (tenant_id, name_key);

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
create trigger service_accounts_requests after delete on service_accounts
    referencing old table as gone
    for each statement execute function forget_requests('account_id');

-- The credentials of service accounts. Each key has exactly one of a secret, a public key
-- and a certificate name. For a service account, a key takes the place of a session: its id
-- is the `sid` of the access tokens that it was exchanged for, and they end with the key.
create table api_keys (
    tenant_id        uuid        not null,
    key_id           uuid        not null,
    account_id       uuid        not null,
    name             text        not null default '',
    -- SHA-256 of the secret. The secret has 256 random bits, so a slow hash is not needed.
    secret_hash      bytea,
    -- A public key in PEM.
    public_key       text,
    -- A name in a client certificate: a host name or a URI.
    certificate_name text,
    -- The idempotency id of the request that created the key.
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

-- The order in which the keys of an account are listed.
create index api_keys_account_idx on api_keys (tenant_id, account_id, key_id);
-- A certificate name belongs to one account.
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
create trigger api_keys_requests after delete on api_keys
    referencing old table as gone
    for each statement execute function forget_requests('key_id');
create trigger api_keys_revoked after update of revoked_at on api_keys
    for each row when (old.revoked_at is null and new.revoked_at is not null)
    execute function forget_request_of_key();

-- The assertions that were exchanged for a token. The primary key makes each work only once
-- (RFC 7523, section 3).
create table spent_assertions (
    tenant_id  uuid        not null,
    key_id     uuid        not null,
    -- SHA-256 of the assertion's `jti`.
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
