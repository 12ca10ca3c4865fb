-- Keeps a session that Postgres says is live.
-- KEYS: the tenant's epoch, the session. ARGV: the look-up's epoch, the user,
-- the look-up's time (ms), how old it may be (ms), until when the session lives
-- (s from now). Postgres was read after the look-up. This may run long after it
-- was sent: nothing in it is counted from now.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local age = now - tonumber(ARGV[3])
if age < 0 or age > tonumber(ARGV[4]) then
    return 0
end
redis.call('HSET', KEYS[2], 'epoch', ARGV[1], 'user', ARGV[2], 'looked_up', ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[5])
return 1
