-- Keeps a session that Postgres says is live.
-- KEYS: the tenant's epoch, the session. ARGV: the epoch before Postgres was
-- read, the user, how long ago that was (ms), until when the session lives (s
-- from now).
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[2], 'epoch', ARGV[1], 'user', ARGV[2], 'read_ms', now - ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[4])
return 1
