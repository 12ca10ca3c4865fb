-- Sets the expiry of a stream, and removes its oldest entries while it uses too much memory. KEYS: the
-- stream. ARGV: the lifetime in seconds, the maximum memory in bytes, the number of newest entries
-- that always stay. All entries are measured: a sample has only the oldest ones, which may be small
-- when the newest are large. For the same reason, one removal may be too little.
redis.call('EXPIRE', KEYS[1], ARGV[1])
local max_bytes, min_entries = tonumber(ARGV[2]), tonumber(ARGV[3])
for _ = 1, 10 do
    local used_bytes = redis.call('MEMORY', 'USAGE', KEYS[1], 'SAMPLES', 0)
    local entries = redis.call('XLEN', KEYS[1])
    if not used_bytes or used_bytes <= max_bytes or entries <= min_entries then
        break
    end
    local kept_entries = math.floor(entries * max_bytes / used_bytes)
    redis.call('XTRIM', KEYS[1], 'MAXLEN', math.max(kept_entries, min_entries))
end
return 1
