-- Looks a session up.
-- KEYS: the tenant's epoch, the session. ARGV: an epoch to start with, how long
-- an epoch is kept (s), how long an entry is trusted after Postgres was read (ms).
-- Returns the tenant's epoch, and the session's user where the entry counts.
local epoch = redis.call('GET', KEYS[1])
if not epoch then
    redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
    return {ARGV[1], ''}
end
local entry = redis.call('HMGET', KEYS[2], 'epoch', 'user', 'read_ms')
if entry[1] ~= epoch then
    return {epoch, ''}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now - tonumber(entry[3]) > tonumber(ARGV[3]) then
    return {epoch, ''}
end
return {epoch, entry[2]}
