create table roles (
    tenant_id   uuid        not null,
    role_id     uuid        not null,
    name        text        not null,
    -- The normalised name (src/api/names.rs): two roles of a tenant cannot have the same.
    name_key    text,
    -- 1 viewer, 2 member, 3 manager, 4 org_admin, 5 platform_admin
    level       smallint    not null,
    permissions text[]      not null default '{}',
    is_system   boolean     not null default false,
    version     bigint      not null default 1,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    constraint roles_pkey primary key (tenant_id, role_id),
    constraint roles_tenant_fkey foreign key (tenant_id)
        references tenants (tenant_id) on delete cascade,
    constraint roles_name_key unique (tenant_id, name),
    constraint roles_level_check check (level between 1 and 5),
    constraint roles_wildcard_check check (is_system or not permissions @> array['*:*']),
    -- The service reads permissions as a list with one dimension, without nulls.
    constraint roles_permissions_check check (
        case when coalesce(array_ndims(permissions), 1) = 1
            then array_position(permissions, null) is null else false end
    )
);

create unique index roles_name_key_idx on roles (tenant_id, name_key);

alter table roles enable row level security;
alter table roles force row level security;
create policy roles_of_tenant on roles
    using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
grant select, insert, update, delete on roles to tenantry_app;

create trigger roles_change after update of name, level, permissions on roles
    for each row execute function record_change('role', 'role_id');
create trigger roles_requests after delete on roles
    referencing old table as gone
    for each statement execute function forget_requests('role_id');
