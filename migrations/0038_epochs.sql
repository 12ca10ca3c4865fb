-- Epochs: which transactions of the past the database still has. Consistency tokens hold
-- transaction ids. After a restore, and after a failover that lost commits, Postgres assigns
-- the ids of the lost transactions again. The epoch of a token tells such an id from an id of
-- this database.

-- The epochs, in the order of their numbers. The last one is the current epoch. The table
-- holds no rows of tenants, and the service cannot read or write it.
create table epochs (
    number            bigint      generated always as identity,
    -- A random number; 0 for the first epoch. Tokens of the first epoch have no epoch in them,
    -- so that programs that know no epochs can read them.
    epoch             bigint      not null,
    -- A token of an earlier epoch is accepted only up to this transaction id. 0: no token is.
    kept_below        xid8        not null,
    -- The Postgres server that began the epoch: the id of its cluster, and its timeline, which
    -- grows with each promotion and each recovery to a point in time. Null when the server does
    -- not tell.
    system_identifier bigint,
    timeline          integer,
    started_at        timestamptz not null default now(),
    constraint epochs_pkey primary key (number),
    constraint epochs_epoch_key unique (epoch)
);

alter table epochs enable row level security;
alter table epochs force row level security;
create policy epochs_of_lookup on epochs to tenantry_lookup
    using ((select require_primary())) with check (true);
grant select, insert, delete on epochs to tenantry_lookup;

-- Returns the id of the cluster and the timeline of the server, or nulls.
--
-- Decides: which errors mean that the server (of a provider) does not tell its timeline.
-- Called by: note_epoch, begin_epoch.
-- In SQL because: only the server knows it.
create function server_identity(out system_identifier bigint, out timeline integer)
    language plpgsql volatile
    set search_path = pg_catalog
as $$
begin
    select c.system_identifier,
        ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer
    into system_identifier, timeline
    from pg_control_system() c;
exception
    when insufficient_privilege or feature_not_supported or object_not_in_prerequisite_state then
        null;
end $$;

-- Begins an epoch. Of the tokens of all earlier epochs, those up to p_kept_below stay valid.
-- Keeps the last 100 epochs.
--
-- Decides: the number of the epoch is random, so that a database that is restored twice does
--     not get the same epoch twice.
-- Called by: note_epoch; tenantry restored (src/cli/restored/store.rs), as the schema's owner.
-- In SQL because: security definer, only tenantry_lookup writes epochs.
create function begin_epoch(p_kept_below xid8) returns void
    language plpgsql security definer
    set search_path = pg_catalog, public, pg_temp
as $$
declare
    server record;
    last bigint;
begin
    select * into server from server_identity();
    insert into epochs (epoch, kept_below, system_identifier, timeline)
    values (
        ('x' || left(md5(gen_random_uuid()::text), 15))::bit(60)::bigint,
        p_kept_below, server.system_identifier, server.timeline
    )
    returning number into last;
    delete from epochs where number <= last - 100;
end $$;

-- Begins an epoch if another server began the current one: a promoted standby, a database that
-- was recovered to a point in time, or a dump that was restored into another cluster.
--
-- Decides: which server has the history of the current epoch. On the same cluster with another
--     timeline, all commits below the newest transaction id may be kept: a token above it is of
--     a lost commit. Another cluster has its own transaction ids, so no token stays valid.
-- Called by: src/pg/server_check.rs before the service uses a server; src/feed/epochs.rs when
--     another server may have answered.
-- In SQL because: security definer. The advisory lock lets one replica begin the epoch.
create function note_epoch() returns void
    language plpgsql security definer
    set search_path = pg_catalog, public, pg_temp
as $$
declare
    server record;
    newest epochs;
begin
    select * into server from server_identity();
    select * into newest from epochs order by number desc limit 1;
    if server.timeline is null
        or (newest.system_identifier, newest.timeline)
            is not distinct from (server.system_identifier, server.timeline)
    then
        return;
    end if;
    perform pg_advisory_xact_lock(hashtextextended('tenantry:epochs', 0));
    select * into newest from epochs order by number desc limit 1;
    if (newest.system_identifier, newest.timeline)
        is distinct from (server.system_identifier, server.timeline)
    then
        perform begin_epoch(case
            when newest.system_identifier = server.system_identifier
            then pg_snapshot_xmax(pg_current_snapshot())
            else '0'::xid8
        end);
    end if;
end $$;

-- Returns the current epoch.
--
-- Decides: nothing.
-- Called by: src/feed/follower.rs, src/db/tx.rs.
-- In SQL because: security definer, only tenantry_lookup reads epochs.
create function current_epoch() returns bigint
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select e.epoch from epochs e order by e.number desc limit 1;
end;

-- Returns the epochs, the current one first, each with the transaction id up to which its
-- tokens are valid; null for the current one.
--
-- Decides: a token is valid if all later epochs keep its transactions.
-- Called by: src/feed/epochs.rs.
-- In SQL because: security definer, only tenantry_lookup reads epochs.
create function read_epochs() returns table (epoch bigint, kept_below bigint)
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select e.epoch, min(e.kept_below::text::bigint) over (
        order by e.number rows between 1 following and unbounded following)
    from epochs e order by e.number desc;
end;

insert into epochs (epoch, kept_below, system_identifier, timeline)
select 0, '0', s.system_identifier, s.timeline from server_identity() s;

revoke execute on function server_identity() from public;
grant execute on function server_identity() to tenantry_lookup;
revoke execute on function begin_epoch(xid8) from public;
revoke execute on function note_epoch() from public;
grant execute on function note_epoch() to tenantry_app;
revoke execute on function current_epoch() from public;
grant execute on function current_epoch() to tenantry_app;
revoke execute on function read_epochs() from public;
grant execute on function read_epochs() to tenantry_app;
grant create on schema public to tenantry_lookup;
alter function begin_epoch(xid8) owner to tenantry_lookup;
alter function note_epoch() owner to tenantry_lookup;
alter function current_epoch() owner to tenantry_lookup;
alter function read_epochs() owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;
