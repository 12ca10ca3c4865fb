-- The outbox can be read without the events of some tenants: of those whose stream in Redis
-- takes none. They must not keep the others' events waiting.

drop function read_outbox(bigint);

-- What the streams do not have yet, in each tenant's order, but for these tenants. None where
-- somebody else is publishing.
create function read_outbox(p_limit bigint, p_except uuid[] default '{}')
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
              where o.tenant_id <> all (p_except)
              order by o.tenant_id, o.position limit p_limit) waiting
        join audit_chain c
            on c.tenant_id = waiting.tenant_id and c.position = waiting.position
        join audit_events e on e.tenant_id = c.tenant_id and e.event_id = c.event_id
        order by c.tenant_id, c.position;
end $$;

grant create on schema public to tenantry_lookup;
revoke execute on function read_outbox(bigint, uuid[]) from public;
grant execute on function read_outbox(bigint, uuid[]) to tenantry_app;
alter function read_outbox(bigint, uuid[]) owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;
