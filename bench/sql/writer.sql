-- A commit that adds a change to the feed.
insert into changes (tenant_id, kind, subject_id)
values ('00000000-0000-7000-8000-000000000001', 'assignment', gen_random_uuid());
