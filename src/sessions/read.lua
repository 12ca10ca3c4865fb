-- Looks a session up.
-- KEYS: the tenant's epoch, the session. ARGV: an epoch to start with, how long
-- an epoch is kept (s), how long an entry is trusted after its look-up (ms).
-- Returns the tenant's epoch, the session's user where the entry counts, and
-- the time (ms).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local epoch = redis.call('GET', KEYS[1])
if not epoch then
    redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
    return {ARGV[1], '', now}
end
local entry = redis.call('HMGET', KEYS[2], 'epoch', 'user', 'looked_up')
if entry[1] ~= epoch then
    return {epoch, '', now}
end
-- Below zero, the clock was set back: then the age is unknown.
local age = now - tonumber(entry[3])
if age < 0 or age > tonumber(ARGV[3]) then
    return {epoch, '', now}
end
return {epoch, entry[2], now}
