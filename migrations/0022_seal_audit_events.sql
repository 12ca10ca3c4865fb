-- The worker that gives audit events their position in the chain of their tenant. One
-- transaction seals a batch of events of all tenants: read_unsealed, then seal_events.

-- Returns whether events wait for a position, and whether events wait to be sent to Redis.
--
-- Decides: whether a worker begins a transaction at all.
-- Called by: src/audit/sealer.rs, src/audit/stream.rs.
-- In SQL because: security definer, it reads across tenants.
create function audit_backlog() returns table (unsealed boolean, unsent boolean)
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select exists (select from audit_queue), exists (select from audit_outbox);
end;

-- Returns the oldest events without a position, p_limit at most, each with the last position
-- and hash in the chain of its tenant. Returns nothing when another replica is sealing.
--
-- Decides: the order of the chain (by event id), and that one replica at a time seals. The
--     advisory lock lasts as long as the transaction.
-- Called by: src/audit/sealer.rs, which computes the hashes (src/audit/chain.rs).
-- In SQL because: security definer, it reads the events of all tenants. One round trip.
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

-- Writes positions and hashes, puts the events into the outbox, and removes them from the
-- queue. The arrays have one element for each event.
--
-- Decides: an event gets one position and one hash. Nothing can change them: the service can
--     only append to audit_chain, and only with this function.
-- Called by: src/audit/sealer.rs.
-- In SQL because: security definer, it writes for all tenants. One round trip.
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

revoke execute on function audit_backlog() from public;
grant execute on function audit_backlog() to tenantry_app;
revoke execute on function read_unsealed(bigint) from public;
grant execute on function read_unsealed(bigint) to tenantry_app;
revoke execute on function seal_events(uuid[], uuid[], bigint[], bytea[]) from public;
grant execute on function seal_events(uuid[], uuid[], bigint[], bytea[]) to tenantry_app;
grant create on schema public to tenantry_lookup;
alter function audit_backlog() owner to tenantry_lookup;
alter function read_unsealed(bigint) owner to tenantry_lookup;
alter function seal_events(uuid[], uuid[], bigint[], bytea[]) owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;
