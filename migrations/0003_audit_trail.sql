-- The audit trail: the events, and for each tenant a chain of hashes that proves their
-- order and completeness.
--
-- An event is written in the transaction of the action that it records. If it took its
-- position in the chain there, all writers of a tenant would wait for each other. So a
-- trigger puts the event into a queue, and a worker assigns the positions
-- (0022_seal_audit_events.sql). Another worker sends events with a position to Redis
-- (0023_publish_audit_events.sql).

-- The events. The service can only append. No foreign key: events stay when their tenant is
-- deleted.
create table audit_events (
    tenant_id       uuid        not null,
    event_id        uuid        not null,
    kind            text        not null,
    actor_tenant_id uuid,
    actor_id        uuid,
    target_id       uuid,
    session_id      uuid,
    -- The correlation id of the request: the request_id of its log lines.
    request_id      text        not null,
    -- The address, sealed under the tenant's data key.
    ip              bytea,
    detail          jsonb       not null default '{}',
    created_at      timestamptz not null default now(),
    constraint audit_events_pkey primary key (tenant_id, event_id)
);

-- Readers of the trail ask for the newest events first.
create index audit_events_time_idx on audit_events (tenant_id, created_at, event_id);
create index audit_events_actor_idx on audit_events (tenant_id, actor_id, created_at, event_id);
create index audit_events_target_idx on audit_events (tenant_id, target_id, created_at, event_id);
create index audit_events_kind_idx
    on audit_events (tenant_id, kind text_pattern_ops, created_at, event_id);

alter table audit_events enable row level security;
alter table audit_events force row level security;
create policy audit_events_of_tenant on audit_events
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
create policy audit_events_of_lookup on audit_events for select to tenantry_lookup using (true);
grant select, insert on audit_events to tenantry_app;
grant select on audit_events to tenantry_lookup;

-- Events without a position in the chain.
create table audit_queue (
    tenant_id uuid not null,
    event_id  uuid not null,
    constraint audit_queue_pkey primary key (tenant_id, event_id)
);

create index audit_queue_order_idx on audit_queue (event_id);

alter table audit_queue enable row level security;
alter table audit_queue force row level security;
create policy audit_queue_of_tenant on audit_queue
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
create policy audit_queue_of_lookup on audit_queue to tenantry_lookup
    using (true) with check (true);
grant select, insert on audit_queue to tenantry_app;
grant select, delete on audit_queue to tenantry_lookup;

-- The chain: the position of each event, and the hash over the event and the hash before it.
create table audit_chain (
    tenant_id uuid   not null,
    position  bigint not null,
    event_id  uuid   not null,
    hash      bytea  not null,
    constraint audit_chain_pkey primary key (tenant_id, position),
    constraint audit_chain_event_key unique (tenant_id, event_id),
    constraint audit_chain_position_check check (position > 0),
    constraint audit_chain_hash_check check (octet_length(hash) = 32)
);

alter table audit_chain enable row level security;
alter table audit_chain force row level security;
create policy audit_chain_of_tenant on audit_chain
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
create policy audit_chain_of_lookup on audit_chain to tenantry_lookup
    using (true) with check (true);
grant select on audit_chain to tenantry_app;
grant select, insert on audit_chain to tenantry_lookup;

-- Events with a position that were not sent to Redis yet.
create table audit_outbox (
    tenant_id uuid   not null,
    position  bigint not null,
    constraint audit_outbox_pkey primary key (tenant_id, position)
);

alter table audit_outbox enable row level security;
alter table audit_outbox force row level security;
create policy audit_outbox_of_tenant on audit_outbox
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
create policy audit_outbox_of_lookup on audit_outbox to tenantry_lookup
    using (true) with check (true);
grant select on audit_outbox to tenantry_app;
grant select, insert, delete on audit_outbox to tenantry_lookup;

-- Puts a new event into the queue.
--
-- Decides: every event gets a position in the chain, because no event is written without
--     its entry in the queue.
-- Called by: the trigger audit_events_queue.
-- In SQL because: with a trigger, no statement can write an event without queueing it. The
--     functions open_session and rotate_session also write events.
create function queue_audit_event() returns trigger
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    insert into audit_queue (tenant_id, event_id) values (new.tenant_id, new.event_id);
    return null;
end $$;

create trigger audit_events_queue after insert on audit_events
    for each row execute function queue_audit_event();
