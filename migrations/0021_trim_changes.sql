-- Marks the progress of transactions, and deletes at most p_batch changes that every reader
-- had p_keep to read. Returns the number of deleted changes; null when another replica is
-- trimming.
--
-- Decides: a change is deleted when it lies below a mark that is at least p_keep old. A
--     reader that has read since that mark was made has seen all changes below it. So only
--     a reader that has not read for p_keep can miss a change, and it learns this from the
--     floor (`missed` in read_changes).
-- Called by: src/feed/trim.rs.
-- In SQL because: security definer, it deletes the changes of all tenants. The advisory lock
--     lets one replica at a time trim.
create function trim_changes(p_keep interval, p_batch bigint) returns bigint
    language plpgsql security definer
    set search_path = pg_catalog, public, pg_temp
as $$
declare
    mark change_marks;
    deleted bigint;
begin
    if not pg_try_advisory_xact_lock(hashtextextended('tenantry:trim_changes', 0)) then
        return null;
    end if;
    insert into change_marks default values;
    select * into mark from change_marks
    where recorded_at <= clock_timestamp() - p_keep
    order by recorded_at desc limit 1;
    if not found then
        return 0;
    end if;
    delete from change_marks where recorded_at < mark.recorded_at;
    with old as (
        select tenant_id, change_id from changes
        where xid < mark.horizon
        order by xid, change_id limit p_batch
    )
    delete from changes c using old
    where c.tenant_id = old.tenant_id and c.change_id = old.change_id;
    get diagnostics deleted = row_count;
    return deleted;
end $$;

revoke execute on function trim_changes(interval, bigint) from public;
grant execute on function trim_changes(interval, bigint) to tenantry_app;
grant create on schema public to tenantry_lookup;
alter function trim_changes(interval, bigint) owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;
