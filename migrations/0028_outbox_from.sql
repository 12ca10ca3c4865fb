-- The outbox can be read from a tenant on: where more streams in Redis take no events than
-- anybody remembers, those that follow have their turn all the same.

drop function read_outbox(bigint, uuid[]);

-- What the streams do not have yet, in each tenant's order, of the tenants from this one on
-- but for these. None where somebody else is publishing.
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

grant create on schema public to tenantry_lookup;
revoke execute on function read_outbox(bigint, uuid[], uuid) from public;
grant execute on function read_outbox(bigint, uuid[], uuid) to tenantry_app;
alter function read_outbox(bigint, uuid[], uuid) owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;
