-- Idempotency: the first response to a request with a request_id (AIP-155). A record ends
-- after 24 hours (0025_trim_requests.sql), and earlier with the object that the request
-- created, or with the caller.

create table idempotency_records (
    tenant_id   uuid        not null,
    -- Two requests are the same when the caller, the method and the request_id are.
    actor_id    uuid        not null,
    method      text        not null,
    request_id  text        not null,
    -- A keyed hash of the request, because the request has personal data.
    fingerprint bytea       not null,
    -- The response, sealed under the tenant's data key.
    response    bytea       not null,
    -- The id of the object that the request created.
    made_id     uuid,
    created_at  timestamptz not null default now(),
    constraint idempotency_records_pkey primary key (tenant_id, actor_id, method, request_id),
    constraint idempotency_records_tenant_fkey foreign key (tenant_id)
        references tenants (tenant_id) on delete cascade
);

create index idempotency_records_created_idx on idempotency_records (created_at);
create index idempotency_records_made_idx on idempotency_records (made_id);
create index idempotency_records_actor_idx on idempotency_records (actor_id);

alter table idempotency_records enable row level security;
alter table idempotency_records force row level security;
create policy idempotency_records_of_tenant on idempotency_records
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
-- A record can be in another tenant than the object or the caller: the record of a tenant's
-- creation is in the platform tenant, and the staff of the platform act in every tenant. So
-- the functions that delete records work across tenants.
create policy idempotency_records_of_lookup on idempotency_records to tenantry_lookup
    using (true);
grant select, insert on idempotency_records to tenantry_app;
-- A new record overwrites an expired one.
grant update (fingerprint, response, made_id, created_at) on idempotency_records to tenantry_app;
grant select (tenant_id, actor_id, method, request_id, made_id, created_at), delete
    on idempotency_records to tenantry_lookup;

-- Deletes the records of deleted objects, and the records of deleted callers. Argument of
-- the trigger: the column with the id of the deleted object.
--
-- Decides: a retry never returns an object that was deleted meanwhile.
-- Called by: the triggers tenants_requests, users_requests, roles_requests,
--     role_assignments_requests, service_accounts_requests and api_keys_requests.
-- In SQL because: with a trigger, no statement can delete an object and keep its record.
--     Rows that a foreign key deletes are included. Security definer: see the policy.
create function forget_requests() returns trigger
    language plpgsql security definer
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    execute format(
        'delete from idempotency_records r using gone g where r.made_id = g.%I', tg_argv[0]);
    execute format(
        'delete from idempotency_records r using gone g where r.actor_id = g.%I', tg_argv[0]);
    return null;
end $$;

-- Deletes the record of the request that created a revoked API key.
--
-- Decides: a retry never returns a key that was revoked meanwhile. The row of the key stays,
--     so forget_requests does not cover this case.
-- Called by: the trigger api_keys_revoked.
-- In SQL because: the same reasons as forget_requests.
create function forget_request_of_key() returns trigger
    language plpgsql security definer
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    delete from idempotency_records where made_id = new.key_id;
    return null;
end $$;

revoke execute on function forget_requests() from public;
revoke execute on function forget_request_of_key() from public;
grant create on schema public to tenantry_lookup;
alter function forget_requests() owner to tenantry_lookup;
alter function forget_request_of_key() owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;

-- The triggers of the other tables are with their tables. This one is here because
-- idempotency_records refers to tenants.
create trigger tenants_requests after delete on tenants
    referencing old table as gone
    for each statement execute function forget_requests('tenant_id');
