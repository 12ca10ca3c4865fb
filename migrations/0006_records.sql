-- What happened, for people; append-only for the service. It outlives its
-- tenant, so it refers to nothing.
create table audit_events (
    tenant_id       uuid        not null,
    event_id        uuid        not null,
    kind            text        not null,
    actor_tenant_id uuid,
    actor_id        uuid,
    target_id       uuid,
    session_id      uuid,
    request_id      text        not null,
    -- The address, sealed under the tenant's data key.
    ip              bytea,
    detail          jsonb       not null default '{}',
    created_at      timestamptz not null default now(),
    constraint audit_events_pkey primary key (tenant_id, event_id)
);

alter table audit_events enable row level security;
alter table audit_events force row level security;
create policy audit_events_of_tenant on audit_events
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
grant select, insert on audit_events to tenantry_app;

-- The first results of requests with a request_id. The key holds all that
-- makes two requests the same: who, what, and the id.
create table idempotency_records (
    tenant_id   uuid        not null,
    actor_id    uuid        not null,
    method      text        not null,
    request_id  text        not null,
    -- Both tell of personal data: a keyed hash, and what is sealed under the tenant's
    -- data key.
    fingerprint bytea       not null,
    response    bytea       not null,
    created_at  timestamptz not null default now(),
    constraint idempotency_records_pkey primary key (tenant_id, actor_id, method, request_id),
    constraint idempotency_records_tenant_fkey foreign key (tenant_id)
        references tenants (tenant_id) on delete cascade
);

alter table idempotency_records enable row level security;
alter table idempotency_records force row level security;
create policy idempotency_records_of_tenant on idempotency_records
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
grant select, insert on idempotency_records to tenantry_app;

-- The change feed: whatever can alter a decision, in the transaction that
-- alters it. `xid` tells by snapshots what a reader has seen: ids are handed out
-- before commit, so no order of theirs is the order of commits.
create table changes (
    tenant_id  uuid        not null,
    change_id  bigint      generated always as identity,
    xid        xid8        not null default pg_current_xact_id(),
    kind       text        not null,
    subject_id uuid        not null,
    created_at timestamptz not null default now(),
    constraint changes_pkey primary key (tenant_id, change_id),
    constraint changes_kind_check check (kind in ('tenant', 'user', 'role', 'assignment', 'session'))
);

create index changes_order_idx on changes (xid, change_id);

alter table changes enable row level security;
alter table changes force row level security;
create policy changes_of_tenant on changes
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
grant select, insert on changes to tenantry_app;

-- Triggers write the feed, so that no writer can forget it.
-- tg_argv: the kind of the change, the column that says what changed.
create function record_change() returns trigger
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
declare
    changed jsonb := to_jsonb(case when tg_op = 'DELETE' then old else new end);
begin
    insert into changes (tenant_id, kind, subject_id)
    values ((changed ->> 'tenant_id')::uuid, tg_argv[0], (changed ->> tg_argv[1])::uuid);
    return null;
end $$;

create trigger tenants_change after update of state, slug, settings or delete on tenants
    for each row execute function record_change('tenant', 'tenant_id');
create trigger users_change after update of state or delete on users
    for each row execute function record_change('user', 'user_id');
create trigger roles_change after update of name, level, permissions on roles
    for each row execute function record_change('role', 'role_id');
create trigger role_assignments_change after insert or update or delete on role_assignments
    for each row execute function record_change('assignment', 'user_id');
create trigger sessions_change after update of revoked_at on sessions
    for each row execute function record_change('session', 'session_id');
