-- The worker that sends sealed audit events to Redis. One transaction sends a batch:
-- read_outbox, then mark_published with the events that Redis accepted.

-- Returns the events that were not sent yet, p_limit at most, in the order of tenants and
-- positions. Returns nothing when another replica is sending.
--
-- p_except    Tenants that are left out, because their stream in Redis refuses events. The
--             other tenants' events must not wait for them.
-- p_from      The first tenant. It gives every tenant its turn when more streams refuse
--             events than the service remembers.
--
-- Decides: the order of a stream is the order of the chain, and one replica at a time sends.
--     The advisory lock lasts as long as the transaction.
-- Called by: src/audit/stream.rs.
-- In SQL because: security definer, it reads the events of all tenants. One round trip.
create function read_outbox(
    p_limit bigint, p_except uuid[] default '{}',
    p_from uuid default '00000000-0000-0000-0000-000000000000'
)
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
              where o.tenant_id >= p_from and o.tenant_id <> all (p_except)
              order by o.tenant_id, o.position limit p_limit) waiting
        join audit_chain c
            on c.tenant_id = waiting.tenant_id and c.position = waiting.position
        join audit_events e on e.tenant_id = c.tenant_id and e.event_id = c.event_id
        order by c.tenant_id, c.position;
end $$;

-- Removes events from the outbox. The arrays have one element for each event.
--
-- Decides: an event stays in the outbox until Redis has accepted it.
-- Called by: src/audit/stream.rs.
-- In SQL because: security definer, it writes for all tenants. One round trip.
create function mark_published(p_tenants uuid[], p_positions bigint[]) returns void
    language sql security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    delete from audit_outbox o
        using unnest(p_tenants, p_positions) as sent (tenant_id, position)
        where o.tenant_id = sent.tenant_id and o.position = sent.position;
end;

revoke execute on function read_outbox(bigint, uuid[], uuid) from public;
grant execute on function read_outbox(bigint, uuid[], uuid) to tenantry_app;
revoke execute on function mark_published(uuid[], bigint[]) from public;
grant execute on function mark_published(uuid[], bigint[]) to tenantry_app;
grant create on schema public to tenantry_lookup;
alter function read_outbox(bigint, uuid[], uuid) owner to tenantry_lookup;
alter function mark_published(uuid[], bigint[]) owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;
