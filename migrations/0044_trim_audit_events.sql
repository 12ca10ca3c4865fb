-- The worker that deletes the oldest events of each audit trail, and signs the checkpoints.

-- As in 0022_seal_audit_events.sql; the chain continues after the checkpoint when all sealed events
-- of the tenant were deleted.
--
-- Decides: the order of the chain (by event id), and that one replica at a time seals. The
--     advisory lock lasts as long as the transaction.
-- Called by: src/audit/sealer.rs, which computes the hashes (src/audit/chain.rs).
-- In SQL because: security definer, it reads the events of all tenants. One round trip.
create or replace function read_unsealed(p_limit bigint)
    returns table (event audit_events, last_position bigint, last_hash bytea)
    language plpgsql security definer
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    if not pg_try_advisory_xact_lock(hashtextextended('tenantry:seal', 0)) then
        return;
    end if;
    return query
        select e, coalesce(last.position, k.position, 0),
            coalesce(last.hash, k.hash, ''::bytea)
        from (select q.tenant_id, q.event_id from audit_queue q
              order by q.event_id limit p_limit) waiting
        join audit_events e
            on e.tenant_id = waiting.tenant_id and e.event_id = waiting.event_id
        left join lateral (
            select c.position, c.hash from audit_chain c
            where c.tenant_id = waiting.tenant_id
            order by c.position desc limit 1
        ) last on true
        left join audit_checkpoints k on k.tenant_id = waiting.tenant_id
        order by e.event_id;
end $$;

-- Returns the next tenants that have sealed events, in the order of their ids, p_limit at most, from
-- the first after p_after. For each, the age of its oldest sealed event in seconds, and whether
-- that event is older than p_keep. An event that is missing counts as old, so that the worker
-- notices it.
--
-- Decides: in which trails events may be due.
-- Called by: src/audit/retention/store.rs.
-- In SQL because: security definer, it reads across tenants. It reads one row of each tenant.
create function audit_trails(p_keep interval, p_after uuid, p_limit bigint)
    returns table (tenant_id uuid, age double precision, is_due boolean)
    language plpgsql stable security definer
    set search_path = pg_catalog, public, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    with recursive trails (tenant_id, event_id, number) as (
        (select c.tenant_id, c.event_id, 1::bigint from audit_chain c
         where c.tenant_id > p_after
         order by c.tenant_id, c.position limit 1)
        union all
        select next.tenant_id, next.event_id, t.number + 1
        from trails t, lateral (
            select c.tenant_id, c.event_id from audit_chain c
            where c.tenant_id > t.tenant_id
            order by c.tenant_id, c.position limit 1
        ) next
        where t.number < p_limit
    )
    select t.tenant_id, extract(epoch from now() - e.created_at)::double precision,
        coalesce(e.created_at <= now() - p_keep, true)
    from trails t
    left join audit_events e on e.tenant_id = t.tenant_id and e.event_id = t.event_id
    order by t.tenant_id;
end $$;

-- Stores the checkpoint of a tenant, and deletes the events of its chain from p_from + 1 up to
-- p_position. Returns their number; null when another replica is trimming, or has trimmed this
-- trail since the worker read it.
--
-- p_from      The position of the tenant's checkpoint, 0 without one.
-- p_hash      The hash at p_position.
-- p_signed_by, p_statement
--             The signed checkpoint. This function cannot verify the signature; `tenantry audit
--             verify` does.
--
-- Decides: events are deleted only in the order of the chain, only after Redis accepted them, and
--     only with the checkpoint. The policies of 0043_audit_checkpoints.sql let it delete no event
--     after the checkpoint, and none that is younger than 30 days: it fails then.
-- Called by: src/audit/retention/store.rs.
-- In SQL because: security definer, the service itself cannot delete events. The advisory lock lets
--     one replica at a time trim.
create function trim_audit_events(
    p_tenant uuid, p_from bigint, p_position bigint, p_hash bytea, p_signed_by text,
    p_statement text
)
    returns bigint
    language plpgsql security definer
    set search_path = pg_catalog, public, pg_temp
as $$
declare
    events bigint;
    places bigint;
begin
    if not pg_try_advisory_xact_lock(hashtextextended('tenantry:trim_audit_events', 0)) then
        return null;
    end if;
    if p_from <> coalesce((
        select k.position from audit_checkpoints k where k.tenant_id = p_tenant), 0)
    then
        return null;
    end if;
    if not exists (
        select from audit_chain c
        where c.tenant_id = p_tenant and c.position = p_position and c.hash = p_hash)
    then
        raise exception 'the chain does not have this hash at position %', p_position;
    end if;
    if exists (
        select from audit_outbox o where o.tenant_id = p_tenant and o.position <= p_position)
    then
        raise exception 'an event up to position % was not sent', p_position;
    end if;
    insert into audit_checkpoints (tenant_id, position, hash, signed_by, statement)
    values (p_tenant, p_position, p_hash, p_signed_by, p_statement)
    on conflict (tenant_id) do update
        set position = p_position, hash = p_hash, signed_by = p_signed_by,
            statement = p_statement;
    delete from audit_events e using audit_chain c
    where c.tenant_id = p_tenant and c.position > p_from and c.position <= p_position
      and e.tenant_id = p_tenant and e.event_id = c.event_id;
    get diagnostics events = row_count;
    delete from audit_chain c
    where c.tenant_id = p_tenant and c.position > p_from and c.position <= p_position;
    get diagnostics places = row_count;
    if events <> p_position - p_from or places <> events then
        raise exception 'an event up to position % is missing or too young', p_position;
    end if;
    return events;
end $$;

-- Returns the next checkpoints that another key than p_signed_by signed, in the order of the
-- tenants, p_limit at most, from the first after p_after.
--
-- Decides: which checkpoints are signed again. A key leaves the published keys some time after it
--     has signed for the last time, and its signatures cannot be verified then.
-- Called by: src/audit/retention/store.rs.
-- In SQL because: security definer, it reads across tenants.
create function stale_audit_checkpoints(p_signed_by text, p_after uuid, p_limit bigint)
    returns setof audit_checkpoints
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select k.* from audit_checkpoints k
    where k.tenant_id > p_after and k.signed_by <> p_signed_by
    order by k.tenant_id limit p_limit;
end;

-- Replaces the signature of a tenant's checkpoint. Changes nothing when the checkpoint has moved.
--
-- Decides: a signature is replaced only for the same position and hash.
-- Called by: src/audit/retention/store.rs, which has verified the old signature.
-- In SQL because: security definer, the service itself cannot change a checkpoint.
create function sign_audit_checkpoint(
    p_tenant uuid, p_position bigint, p_hash bytea, p_signed_by text, p_statement text
)
    returns void
    language sql security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    update audit_checkpoints k set signed_by = p_signed_by, statement = p_statement
    where k.tenant_id = p_tenant and k.position = p_position and k.hash = p_hash;
end;

-- Returns the next tenants that have or had an audit trail, also deleted ones, in the order of their
-- ids, p_limit at most, from the first after p_after.
--
-- Decides: as list_tenants, only the platform tenant sees them.
-- Called by: src/audit/verify.rs.
-- In SQL because: security definer, it reads across tenants. It reads one row of each tenant and
--     table; the function without arguments reads all events.
create function audited_tenants(p_after uuid, p_limit bigint) returns setof uuid
    language plpgsql stable security definer
    set search_path = pg_catalog, public, pg_temp
as $$
declare
    tenant uuid := p_after;
begin
    if not exists (
        select from tenants p where p.tenant_id = current_tenant() and p.is_platform)
    then
        return;
    end if;
    for number in 1..p_limit loop
        select least(
            (select e.tenant_id from audit_events e where e.tenant_id > tenant
             order by e.tenant_id limit 1),
            (select c.tenant_id from audit_chain c where c.tenant_id > tenant
             order by c.tenant_id limit 1),
            (select k.tenant_id from audit_checkpoints k where k.tenant_id > tenant
             order by k.tenant_id limit 1)
        ) into tenant;
        exit when tenant is null;
        return next tenant;
    end loop;
end $$;

revoke execute on function audit_trails(interval, uuid, bigint) from public;
grant execute on function audit_trails(interval, uuid, bigint) to tenantry_app;
revoke execute on function trim_audit_events(uuid, bigint, bigint, bytea, text, text) from public;
grant execute on function trim_audit_events(uuid, bigint, bigint, bytea, text, text) to tenantry_app;
revoke execute on function stale_audit_checkpoints(text, uuid, bigint) from public;
grant execute on function stale_audit_checkpoints(text, uuid, bigint) to tenantry_app;
revoke execute on function sign_audit_checkpoint(uuid, bigint, bytea, text, text) from public;
grant execute on function sign_audit_checkpoint(uuid, bigint, bytea, text, text) to tenantry_app;
revoke execute on function audited_tenants(uuid, bigint) from public;
grant execute on function audited_tenants(uuid, bigint) to tenantry_app;
grant create on schema public to tenantry_lookup;
alter function audit_trails(interval, uuid, bigint) owner to tenantry_lookup;
alter function trim_audit_events(uuid, bigint, bigint, bytea, text, text) owner to tenantry_lookup;
alter function stale_audit_checkpoints(text, uuid, bigint) owner to tenantry_lookup;
alter function sign_audit_checkpoint(uuid, bigint, bytea, text, text) owner to tenantry_lookup;
alter function audited_tenants(uuid, bigint) owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;
