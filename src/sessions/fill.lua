-- Keeps a session that Postgres says is live.
-- KEYS: the tenant's epoch, the session. ARGV: the look-up's epoch, the entry, the
-- look-up's time (ms), how old it may be (ms), for how long to keep it (ms). Postgres was
-- read after the look-up. This may run long after it was sent: nothing in it is counted
-- from now.
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
