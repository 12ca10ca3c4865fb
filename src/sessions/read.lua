-- Looks a session up.
-- KEYS: the tenant's epoch, the session. ARGV: an epoch to start with, how long
-- an epoch is kept (s).
-- Returns the tenant's epoch, the session's entry ('' where there is none), and the time
-- (ms). Who asked judges the entry.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local epoch = redis.call('GET', KEYS[1])
if not epoch then
    redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
    return {ARGV[1], '', now}
end
return {epoch, redis.call('GET', KEYS[2]) or '', now}
