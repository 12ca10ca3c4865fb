-- Looks a session up.
-- KEYS: the tenant's epoch, the session. ARGV: an epoch to start with, how long
-- an epoch is kept (s), the longest entry (bytes).
-- Returns the tenant's epoch, the session's entry ('' where there is none), and the time
-- (ms). Who asked judges the entry.
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
