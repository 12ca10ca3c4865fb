-- Begins a guess at an account's password.
-- KEYS: the failures from this network; those from everywhere; the guesses under way;
-- whether the account's owner was here.
-- ARGV: the failures that cost nothing, the guesses under way besides, how long one
-- takes at most (ms).
-- Returns how long nobody may guess from here (ms), 0 where the guess has begun.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local free, besides = tonumber(ARGV[1]), tonumber(ARGV[2])

local here = redis.call('HMGET', KEYS[1], 'failures', 'until')
local wait = tonumber(here[2] or 0) - now
if redis.call('EXISTS', KEYS[4]) == 0 then
    local everywhere = tonumber(redis.call('HGET', KEYS[2], 'until') or 0)
    wait = math.max(wait, everywhere - now)
end
if wait > 0 then
    return wait
end

-- Those under way may all be wrong. Once there were too many failures they come one by
-- one.
local failures = tonumber(here[1] or 0)
local underway = tonumber(redis.call('GET', KEYS[3]) or 0)
local room = math.max(free - failures + besides, 1)
if failures >= free then
    room = 1
end
if underway >= room then
    return 1000
end
redis.call('INCR', KEYS[3])
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return 0
