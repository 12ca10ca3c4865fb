-- The order of the last sign-in. Sign-ins wait while it is made, a second or two for a
-- million users. Whoever has more makes it beforehand, concurrently: then this finds it.
-- (Not here: a concurrent build and a second migrating process would wait for each other.)
create index if not exists users_last_sign_in_idx
    on users (tenant_id, last_sign_in_at, user_id);
