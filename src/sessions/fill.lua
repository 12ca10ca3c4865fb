-- Caches a session that Postgres reported as live. `src/redis/values.lua` defines `text_of`.
-- KEYS: the tenant's epoch, the session.
-- ARGV: the epoch at the lookup; the entry; the time of the lookup (ms); the maximum age of the
-- lookup (ms); the time to live of the entry (ms).
-- Postgres was read after the lookup. This script may run long after it was sent, so the age starts
-- at the lookup.
if text_of(KEYS[1], #ARGV[1]) ~= ARGV[1] then
    return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local age = now - tonumber(ARGV[3])
if age < 0 or age > tonumber(ARGV[4]) then
    return 0
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[5])
return 1
