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
    -- A slug that looks like an id could stand in for another tenant's.
    constraint tenants_slug_check check (
        slug ~ '^[a-z0-9-]{1,63}$'
        and slug !~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
    ),
    -- Reserves the slug, and with the grants below keeps the service from
    -- making a tenant the platform.
    constraint tenants_platform_slug_check check (is_platform = (slug = 'platform')),
    constraint tenants_settings_check check (jsonb_typeof(settings) = 'object'),
    constraint tenants_state_check check (state in ('active', 'suspended'))
);

alter table tenants enable row level security;
alter table tenants force row level security;
create policy tenants_of_tenant on tenants
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));

grant select, delete on tenants to tenantry_app;
grant insert (tenant_id, name, slug, settings) on tenants to tenantry_app;
grant update (name, slug, settings, state, version, updated_at) on tenants to tenantry_app;
