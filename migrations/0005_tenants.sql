create table tenants (
    tenant_id   uuid        not null,
    name        text        not null,
    slug        text        not null,
    settings    jsonb       not null default '{}',
    state       text        not null default 'active',
    is_platform boolean     not null default false,
    version     bigint      not null default 1,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    constraint tenants_pkey primary key (tenant_id),
    constraint tenants_slug_key unique (slug),
    constraint tenants_name_check check (char_length(name) between 1 and 200),
    -- A slug in the form of a UUID could be the id of another tenant.
    constraint tenants_slug_check check (
        slug ~ '^[a-z0-9-]{1,63}$'
        and slug !~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
    ),
    -- Reserves the slug `platform`. The service has no right to write is_platform, so it
    -- cannot create the platform tenant.
    constraint tenants_platform_slug_check check (is_platform = (slug = 'platform')),
    constraint tenants_settings_check check (jsonb_typeof(settings) = 'object'),
    constraint tenants_state_check check (state in ('active', 'suspended'))
);

alter table tenants enable row level security;
alter table tenants force row level security;
create policy tenants_of_tenant on tenants
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
create policy tenants_of_lookup on tenants for select to tenantry_lookup using (true);

grant select, delete on tenants to tenantry_app;
grant insert (tenant_id, name, slug, settings) on tenants to tenantry_app;
grant update (name, slug, settings, state, version, updated_at) on tenants to tenantry_app;
grant select (tenant_id, name, slug, settings, state, is_platform, version, created_at, updated_at)
    on tenants to tenantry_lookup;

create trigger tenants_change after update of state, slug, settings or delete on tenants
    for each row execute function record_change('tenant', 'tenant_id');
create trigger tenants_data_key after delete on tenants
    for each row execute function destroy_data_key();
-- Another trigger of this table is in 0006_idempotency.sql.
