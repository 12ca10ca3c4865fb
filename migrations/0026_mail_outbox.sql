-- Mails that wait to be sent, and requests for password resets that wait to be handled. A row
-- is written in the transaction of the change that the mail is about, so no acknowledged mail
-- is lost in a crash.

create table mail_outbox (
    -- The tenant whose share of the outbox the row counts against. A request that names no
    -- existing tenant has an id that stands for none, so there is no foreign key.
    tenant_id  uuid        not null,
    mail_id    uuid        not null,
    kind       text        not null,
    -- The address, the text and the link, sealed.
    content    bytea       not null,
    created_at timestamptz not null default now(),
    -- When the row is handled next. A worker that takes the row moves this time ahead.
    due_at     timestamptz not null default now(),
    -- After this time the mail is useless, and is deleted unsent.
    expires_at timestamptz not null,
    attempts   integer     not null default 0,
    constraint mail_outbox_pkey primary key (tenant_id, mail_id),
    constraint mail_outbox_kind_check
        check (kind in ('reset_request', 'password_reset', 'email_changed'))
);

create index mail_outbox_due_idx on mail_outbox (due_at);
create index mail_outbox_kind_idx on mail_outbox (kind, tenant_id);

alter table mail_outbox enable row level security;
alter table mail_outbox force row level security;
create policy mail_outbox_of_tenant on mail_outbox
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
create policy mail_outbox_of_lookup on mail_outbox to tenantry_lookup
    using (true)
    with check (true);
grant select, insert, update, delete on mail_outbox to tenantry_app;
grant select, insert, update, delete on mail_outbox to tenantry_lookup;

-- Puts a row into the outbox. Returns `queued`; `duplicate` when the row is there already;
-- `full` when p_total rows of the kind wait, or p_of_tenant rows of the tenant.
--
-- Decides: the bounds of the outbox. Calls at the same moment may exceed them by their number.
-- Called by: src/mail/store.rs.
-- In SQL because: security definer, it counts the rows of all tenants. One round trip.
create function queue_mail(
    p_mail uuid, p_kind text, p_content bytea, p_life interval,
    p_of_tenant bigint, p_total bigint
)
    returns text
    language plpgsql security definer
    set search_path = pg_catalog, public, pg_temp
as $$
declare
    tenant constant uuid := current_tenant();
begin
    if (select count(*) from (
            select from mail_outbox m
            where m.kind = p_kind and m.tenant_id = tenant limit p_of_tenant) waiting
        ) >= p_of_tenant
        or (select count(*) from (
            select from mail_outbox m where m.kind = p_kind limit p_total) waiting
        ) >= p_total
    then
        return 'full';
    end if;
    insert into mail_outbox (tenant_id, mail_id, kind, content, expires_at)
    values (tenant, p_mail, p_kind, p_content, now() + p_life)
    on conflict on constraint mail_outbox_pkey do nothing;
    return case when found then 'queued' else 'duplicate' end;
end $$;

revoke execute on function queue_mail(uuid, text, bytea, interval, bigint, bigint) from public;
grant execute on function queue_mail(uuid, text, bytea, interval, bigint, bigint)
    to tenantry_app;
grant create on schema public to tenantry_lookup;
alter function queue_mail(uuid, text, bytea, interval, bigint, bigint) owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;
