-- Looks up a session. `src/redis/values.lua` defines `text_of`.
-- KEYS: the tenant's epoch, the session.
-- ARGV: an epoch to store if the tenant has none; the time to live of an epoch (s); the maximum
-- size of an entry (bytes).
-- Returns the tenant's epoch, the session's entry ('' if there is none) and the time (ms). The
-- entry is not verified yet.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local epoch = text_of(KEYS[1], #ARGV[1])
if not epoch or #epoch < #ARGV[1] or string.find(epoch, '%X') then
    redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
    return {ARGV[1], '', now}
end
local entry = text_of(KEYS[2], tonumber(ARGV[3]))
if not entry or string.find(entry, '[^%w%-_ ]') then
    entry = ''
end
return {epoch, entry, now}
