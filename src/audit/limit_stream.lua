-- Sets the expiry of a stream, and removes its oldest entries while it uses too much memory. KEYS: the
-- stream. ARGV: the lifetime in seconds, the maximum memory in bytes, the number of newest entries
-- that always stay.
redis.call('EXPIRE', KEYS[1], ARGV[1])
local used_bytes = redis.call('MEMORY', 'USAGE', KEYS[1], 'SAMPLES', 100)
local max_bytes = tonumber(ARGV[2])
if used_bytes and used_bytes > max_bytes then
    local entries = redis.call('XLEN', KEYS[1])
    local kept_entries = math.floor(entries * max_bytes / used_bytes)
    redis.call('XTRIM', KEYS[1], 'MAXLEN', math.max(kept_entries, tonumber(ARGV[3])))
end
return 1
