-- The worker that sends the mails of the outbox.

-- Takes rows of these kinds that are due, p_limit at most, and p_of_tenant of one tenant. A
-- row that is taken is due again after p_lease, so another worker handles it if this one dies.
--
-- Decides: the order of mails, and that two replicas never handle one row at the same time.
-- Called by: src/mail/store.rs.
-- In SQL because: security definer, it reads the rows of all tenants. One round trip.
create function claim_mails(
    p_kinds text[], p_limit bigint, p_of_tenant bigint, p_lease interval
)
    returns table (
        tenant_id uuid, mail_id uuid, kind text, content bytea, attempts integer, expired boolean
    )
    language sql security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    with due as (
        select m.tenant_id, m.mail_id, m.due_at,
               row_number() over (partition by m.tenant_id order by m.due_at) as turn
        from mail_outbox m
        where m.due_at <= now() and m.kind = any (p_kinds)
    ),
    taken as (
        select m.tenant_id, m.mail_id
        from mail_outbox m
        join due on due.tenant_id = m.tenant_id and due.mail_id = m.mail_id
        where due.turn <= p_of_tenant and m.due_at <= now()
        order by due.turn, due.due_at
        limit p_limit
        for update of m skip locked
    )
    update mail_outbox m
    set due_at = now() + p_lease, attempts = m.attempts + 1
    from taken
    where m.tenant_id = taken.tenant_id and m.mail_id = taken.mail_id
    returning m.tenant_id, m.mail_id, m.kind, m.content, m.attempts, m.expires_at <= now();
end;

-- Makes a row due again after p_delay.
--
-- Decides: only the worker that has taken the row last sets its next time.
-- Called by: src/mail/store.rs.
-- In SQL because: security definer, the worker serves all tenants.
create function retry_mail(p_tenant uuid, p_mail uuid, p_attempts integer, p_delay interval)
    returns void
    language sql security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    update mail_outbox m set due_at = now() + p_delay
    where m.tenant_id = p_tenant and m.mail_id = p_mail and m.attempts = p_attempts;
end;

-- Removes a row.
--
-- Decides: nothing. The worker removes a row whose mail was sent, was refused or has expired.
-- Called by: src/mail/store.rs.
-- In SQL because: security definer, the worker serves all tenants.
create function remove_mail(p_tenant uuid, p_mail uuid) returns void
    language sql security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    delete from mail_outbox m where m.tenant_id = p_tenant and m.mail_id = p_mail;
end;

-- Returns the number of rows in the outbox, and the age of the oldest one in seconds.
--
-- Decides: nothing. The numbers are metrics.
-- Called by: src/mail/store.rs, for metrics.
-- In SQL because: security definer, it counts the rows of all tenants.
create function mail_backlog() returns table (waiting bigint, oldest double precision)
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select count(*), coalesce(extract(epoch from now() - min(m.created_at)), 0)::double precision
    from mail_outbox m;
end;

revoke execute on function claim_mails(text[], bigint, bigint, interval) from public;
grant execute on function claim_mails(text[], bigint, bigint, interval) to tenantry_app;
revoke execute on function retry_mail(uuid, uuid, integer, interval) from public;
grant execute on function retry_mail(uuid, uuid, integer, interval) to tenantry_app;
revoke execute on function remove_mail(uuid, uuid) from public;
grant execute on function remove_mail(uuid, uuid) to tenantry_app;
revoke execute on function mail_backlog() from public;
grant execute on function mail_backlog() to tenantry_app;
grant create on schema public to tenantry_lookup;
alter function claim_mails(text[], bigint, bigint, interval) owner to tenantry_lookup;
alter function retry_mail(uuid, uuid, integer, interval) owner to tenantry_lookup;
alter function remove_mail(uuid, uuid) owner to tenantry_lookup;
alter function mail_backlog() owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;
