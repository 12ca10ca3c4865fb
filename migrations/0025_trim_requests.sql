-- Deletes idempotency records that are older than p_keep, p_batch at most. Returns the
-- number of deleted records; null when another replica is trimming.
--
-- Decides: a record ends at the age p_keep. The second condition on created_at spares a
--     record that a new request overwrote while this statement waited for its lock.
-- Called by: src/api/idempotency/trim.rs.
-- In SQL because: security definer, it deletes the records of all tenants. The advisory lock
--     lets one replica at a time trim.
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

revoke execute on function trim_requests(interval, bigint) from public;
grant execute on function trim_requests(interval, bigint) to tenantry_app;
grant create on schema public to tenantry_lookup;
alter function trim_requests(interval, bigint) owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;
