-- Takes one call into account (GCRA).
-- KEYS: what is counted. ARGV: the time after which a call makes room again (µs),
-- how many may come at once.
-- Returns how long there is no room (µs), 0 where the call was taken.
--
-- The key holds when all that was taken will have made room.
local interval, calls = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full = now + interval * calls
local free = tonumber(redis.call('GET', KEYS[1]) or now) or now
if free ~= free then
    free = now
end
-- Later than full: the clock was set back, or the rate was raised.
free = math.min(math.max(free, now), full) + interval
if free > full then
    return free - full
end
redis.call('SET', KEYS[1], string.format('%.0f', free), 'PX', math.ceil((free - now) / 1000) + 1)
return 0
