-- Records of requests with a request_id end after a day, and go before that with what
-- the request made and with the caller.
alter table idempotency_records
    -- What the request made; null in records of before.
    add column made_id uuid;

-- They are what a retry within minutes needs. So the indexes are made on a short table.
delete from idempotency_records where created_at <= now() - interval '24 hours';
create index idempotency_records_created_idx on idempotency_records (created_at);
create index idempotency_records_made_idx on idempotency_records (made_id);
create index idempotency_records_actor_idx on idempotency_records (actor_id);

-- An ended record gives its place to a new one.
grant update (fingerprint, response, made_id, created_at) on idempotency_records to tenantry_app;

-- The record of a tenant's creation is the platform's, and the staff of the platform act
-- in every tenant: what deletes records looks across tenants.
grant select (tenant_id, actor_id, method, request_id, made_id, created_at), delete
    on idempotency_records to tenantry_lookup;
create policy idempotency_records_of_lookup on idempotency_records to tenantry_lookup
    using (true);

-- Deletes the records of what is gone, and those of callers who are.
-- tg_argv: the column that has the id.
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

create trigger tenants_requests after delete on tenants
    referencing old table as gone
    for each statement execute function forget_requests('tenant_id');
create trigger users_requests after delete on users
    referencing old table as gone
    for each statement execute function forget_requests('user_id');
create trigger roles_requests after delete on roles
    referencing old table as gone
    for each statement execute function forget_requests('role_id');
create trigger role_assignments_requests after delete on role_assignments
    referencing old table as gone
    for each statement execute function forget_requests('assignment_id');
create trigger service_accounts_requests after delete on service_accounts
    referencing old table as gone
    for each statement execute function forget_requests('account_id');
create trigger api_keys_requests after delete on api_keys
    referencing old table as gone
    for each statement execute function forget_requests('key_id');

-- A revoked key is kept to be looked at; what made it is over.
create function forget_request_of_key() returns trigger
    language plpgsql security definer
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    delete from idempotency_records where made_id = new.key_id;
    return null;
end $$;

create trigger api_keys_revoked after update of revoked_at on api_keys
    for each row when (old.revoked_at is null and new.revoked_at is not null)
    execute function forget_request_of_key();

-- Deletes a batch of ended records. Says how many; null when somebody else is at it.
create function trim_requests(p_keep interval, p_batch bigint) returns bigint
    language plpgsql security definer
    set search_path = pg_catalog, public, pg_temp
as $$
declare
    deleted bigint;
begin
    if not pg_try_advisory_xact_lock(hashtextextended('tenantry:trim_requests', 0)) then
        return null;
    end if;
    with ended as (
        select tenant_id, actor_id, method, request_id from idempotency_records
        where created_at <= now() - p_keep
        order by created_at limit p_batch
    )
    delete from idempotency_records r using ended e
    where r.tenant_id = e.tenant_id and r.actor_id = e.actor_id
      and r.method = e.method and r.request_id = e.request_id
      and r.created_at <= now() - p_keep;
    get diagnostics deleted = row_count;
    return deleted;
end $$;

do $$
declare
    lookup text;
begin
    grant create on schema public to tenantry_lookup;
    foreach lookup in array array[
        'forget_requests()',
        'forget_request_of_key()',
        'trim_requests(interval, bigint)'
    ] loop
        execute format('revoke execute on function %s from public', lookup);
        execute format('alter function %s owner to tenantry_lookup', lookup);
    end loop;
    revoke create on schema public from tenantry_lookup;
end $$;

grant execute on function trim_requests(interval, bigint) to tenantry_app;

-- When a user last signed in; -infinity for one who never has, so that the order has a
-- place for it. It is no change of the user: version and updated_at stay.
alter table users add column last_sign_in_at timestamptz not null default '-infinity';

-- As in 0009, and the user's row says when.
create or replace function open_session(
    p_tenant uuid, p_user uuid, p_verified_hash text, p_new_hash text,
    p_session uuid, p_client bytea,
    p_refresh_jti text, p_refresh_kid text, p_refresh_expires_at timestamptz,
    p_access_jti text, p_access_kid text, p_access_expires_at timestamptz,
    p_issued_at timestamptz, p_expires_at timestamptz,
    p_event uuid, p_trace_id text, p_ip bytea
)
    returns table (roles text[])
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    perform set_config('tenantry.tenant', p_tenant::text, true);

    -- The lock orders this against a disabling: either that sees the session, or
    -- this sees that. A suspension ends no sessions, so it needs none.
    perform from users u
        join tenants t on t.tenant_id = u.tenant_id
        where u.tenant_id = p_tenant and u.user_id = p_user
          and u.state = 'active' and t.state = 'active'
        for no key update of u;
    if not found then
        return;
    end if;

    -- Likewise against a change of the password. Who is to replace the hash takes
    -- the stronger lock at once: two that shared it would wait for each other.
    if p_new_hash is null then
        perform from credentials c
        where c.tenant_id = p_tenant and c.user_id = p_user
          and c.password_hash = p_verified_hash
        for share;
    else
        update credentials c set password_hash = p_new_hash, updated_at = now()
        where c.tenant_id = p_tenant and c.user_id = p_user
          and c.password_hash = p_verified_hash;
    end if;
    if not found then
        return;
    end if;

    update users u set last_sign_in_at = now()
    where u.tenant_id = p_tenant and u.user_id = p_user;

    insert into sessions (
        tenant_id, session_id, user_id, client,
        refresh_jti, refresh_kid, refresh_issued_at, refresh_expires_at,
        access_jti, access_kid, access_expires_at, expires_at
    ) values (
        p_tenant, p_session, p_user, p_client,
        p_refresh_jti, p_refresh_kid, p_issued_at, p_refresh_expires_at,
        p_access_jti, p_access_kid, p_access_expires_at, p_expires_at
    );

    insert into audit_events
        (tenant_id, event_id, kind, actor_tenant_id, actor_id, target_id, session_id,
         request_id, ip)
    values (p_tenant, p_event, 'signed_in', p_tenant, p_user, p_user, p_session,
        p_trace_id, p_ip);

    return query select role_names(p_tenant, p_user);
end $$;
