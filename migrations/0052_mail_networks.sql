-- no-transaction
-- One network has a share of the requests for mails that wait in the outbox.
--
-- Each block is a transaction of its own, so that no call waits for two tables
-- (README.md). An attempt that fails is repeated from the start.

-- A keyed hash of the network that requested the mail. Null for mails that were not requested
-- without a token, and in rows of an earlier release.
begin;
alter table mail_outbox add column if not exists network bytea;
commit;

begin;
-- Puts a row into the outbox. Returns `queued`; `duplicate` when the row is there already;
-- `full` when the tenant or the network may have no further row. Each has at most p_of_tenant
-- or p_of_network rows of the kind, and no more than can still be added: p_total less all rows.
--
-- Decides: the bounds of the outbox. Calls at the same moment may exceed them by their number.
-- Called by: src/mail/store.rs.
-- In SQL because: security definer, it counts the rows of all tenants. One round trip.
create or replace function queue_mail(
    p_mail uuid, p_kind text, p_content bytea, p_life interval, p_network bytea,
    p_of_tenant bigint, p_of_network bigint, p_total bigint
)
    returns text
    language plpgsql security definer
    set search_path = pg_catalog, public, pg_temp
as $$
declare
    tenant constant uuid := current_tenant();
    of_tenant bigint;
    of_network bigint;
    free bigint;
begin
    select count(*) filter (where waiting.tenant_id = tenant),
           count(*) filter (where waiting.network = p_network),
           p_total - count(*)
    into of_tenant, of_network, free
    from (
        select m.tenant_id, m.network from mail_outbox m where m.kind = p_kind limit p_total
    ) waiting;
    if of_tenant >= least(p_of_tenant, free) or of_network >= least(p_of_network, free) then
        return 'full';
    end if;
    insert into mail_outbox (tenant_id, mail_id, kind, content, network, expires_at)
    values (tenant, p_mail, p_kind, p_content, p_network, now() + p_life)
    on conflict on constraint mail_outbox_pkey do nothing;
    return case when found then 'queued' else 'duplicate' end;
end $$;

revoke execute on function
    queue_mail(uuid, text, bytea, interval, bytea, bigint, bigint, bigint) from public;
grant execute on function
    queue_mail(uuid, text, bytea, interval, bytea, bigint, bigint, bigint) to tenantry_app;
grant create on schema public to tenantry_lookup;
alter function queue_mail(uuid, text, bytea, interval, bytea, bigint, bigint, bigint)
    owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;
commit;
