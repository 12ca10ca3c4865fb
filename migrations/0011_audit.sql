-- The audit trail's order and its proof: each tenant's events in a chain of hashes.
--
-- An event is written in the transaction of what it records, where waiting for its
-- place in the chain would put all of a tenant's writers into one queue. So a
-- trigger notes the event, and one sealer after the other gives it its place.

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

-- Events without a place yet.
create table audit_queue (
    tenant_id uuid not null,
    event_id  uuid not null,
    constraint audit_queue_pkey primary key (tenant_id, event_id)
);

create index audit_queue_order_idx on audit_queue (event_id);

-- Events with a place that the stream does not have yet.
create table audit_outbox (
    tenant_id uuid   not null,
    position  bigint not null,
    constraint audit_outbox_pkey primary key (tenant_id, position)
);

do $$
declare
    name text;
begin
    foreach name in array array['audit_chain', 'audit_queue', 'audit_outbox'] loop
        execute format('alter table %I enable row level security', name);
        execute format('alter table %I force row level security', name);
        execute format(
            'create policy %I on %I using (tenant_id = (select current_tenant()))
                 with check (tenant_id = (select current_tenant()))',
            name || '_of_tenant', name);
        execute format(
            'create policy %I on %I to tenantry_lookup using (true) with check (true)',
            name || '_of_lookup', name);
    end loop;
end $$;

grant select on audit_chain, audit_outbox to tenantry_app;
grant select, insert on audit_queue to tenantry_app;

-- Whoever reads the trail asks for the newest first.
create index audit_events_time_idx on audit_events (tenant_id, created_at, event_id);
create index audit_events_actor_idx on audit_events (tenant_id, actor_id, created_at, event_id);
create index audit_events_target_idx on audit_events (tenant_id, target_id, created_at, event_id);
create index audit_events_kind_idx
    on audit_events (tenant_id, kind text_pattern_ops, created_at, event_id);

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

-- Sealing works across tenants: one transaction for whatever waits.
grant select on audit_events to tenantry_lookup;
create policy audit_events_of_lookup on audit_events for select to tenantry_lookup using (true);
grant select, insert on audit_chain to tenantry_lookup;
grant select, delete on audit_queue to tenantry_lookup;
grant select, insert, delete on audit_outbox to tenantry_lookup;

-- The events that wait for their place, oldest first, each with the last place
-- that its tenant's chain has. None where somebody else is sealing: the lock lasts
-- as long as the transaction.
create function read_unsealed(p_limit bigint)
    returns table (event audit_events, last_position bigint, last_hash bytea)
    language plpgsql security definer
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    if not pg_try_advisory_xact_lock(hashtextextended('tenantry:seal', 0)) then
        return;
    end if;
    return query
        select e, coalesce(last.position, 0), coalesce(last.hash, ''::bytea)
        from (select q.tenant_id, q.event_id from audit_queue q
              order by q.event_id limit p_limit) waiting
        join audit_events e
            on e.tenant_id = waiting.tenant_id and e.event_id = waiting.event_id
        left join lateral (
            select c.position, c.hash from audit_chain c
            where c.tenant_id = waiting.tenant_id
            order by c.position desc limit 1
        ) last on true
        order by e.event_id;
end $$;

-- Gives events their places.
create function seal_events(
    p_tenants uuid[], p_events uuid[], p_positions bigint[], p_hashes bytea[]
)
    returns void
    language sql security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    insert into audit_chain (tenant_id, position, event_id, hash)
        select * from unnest(p_tenants, p_positions, p_events, p_hashes);
    insert into audit_outbox (tenant_id, position)
        select * from unnest(p_tenants, p_positions);
    delete from audit_queue q
        using unnest(p_tenants, p_events) as sealed (tenant_id, event_id)
        where q.tenant_id = sealed.tenant_id and q.event_id = sealed.event_id;
end;

-- What the stream does not have yet, in each tenant's order. None where somebody
-- else is publishing.
create function read_outbox(p_limit bigint)
    returns table (event audit_events, "position" bigint, hash bytea)
    language plpgsql security definer
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    if not pg_try_advisory_xact_lock(hashtextextended('tenantry:publish', 0)) then
        return;
    end if;
    return query
        select e, c.position, c.hash
        from (select o.tenant_id, o.position from audit_outbox o
              order by o.tenant_id, o.position limit p_limit) waiting
        join audit_chain c
            on c.tenant_id = waiting.tenant_id and c.position = waiting.position
        join audit_events e on e.tenant_id = c.tenant_id and e.event_id = c.event_id
        order by c.tenant_id, c.position;
end $$;

-- Notes what the stream has.
create function mark_published(p_tenants uuid[], p_positions bigint[]) returns void
    language sql security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    delete from audit_outbox o
        using unnest(p_tenants, p_positions) as sent (tenant_id, position)
        where o.tenant_id = sent.tenant_id and o.position = sent.position;
end;

-- Whether anything waits to be sealed, and to be sent.
create function audit_backlog() returns table (unsealed boolean, unsent boolean)
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select exists (select from audit_queue), exists (select from audit_outbox);
end;

-- Every tenant that has or had a trail, for who works in the platform's tenant.
create function audited_tenants() returns setof uuid
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select found.tenant_id
    from (
        select e.tenant_id from audit_events e
        union
        select c.tenant_id from audit_chain c
    ) found
    where exists (
        select from tenants p where p.tenant_id = current_tenant() and p.is_platform
    )
    order by 1;
end;

do $$
declare
    lookup text;
begin
    grant create on schema public to tenantry_lookup;
    foreach lookup in array array[
        'audit_backlog()',
        'read_unsealed(bigint)',
        'seal_events(uuid[], uuid[], bigint[], bytea[])',
        'read_outbox(bigint)',
        'mark_published(uuid[], bigint[])',
        'audited_tenants()'
    ] loop
        execute format('revoke execute on function %s from public', lookup);
        execute format('grant execute on function %s to tenantry_app', lookup);
        execute format('alter function %s owner to tenantry_lookup', lookup);
    end loop;
    revoke create on schema public from tenantry_lookup;
end $$;

-- What was recorded before there was a chain.
insert into audit_queue (tenant_id, event_id) select tenant_id, event_id from audit_events;
