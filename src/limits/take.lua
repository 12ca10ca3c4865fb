-- Counts one call (GCRA).
--
-- KEYS: the counter. ARGV: interval after which one more call is allowed (µs); number of calls
-- that may come at once.
--
-- Returns the time until the next call is allowed (µs), or 0 when this call was counted.
--
-- The value is the time (µs) at which all calls may come at once again.
local interval, calls = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full = now + interval * calls

local function keep(free)
    local life = math.ceil((free - now) / 1000) + 1
    redis.call('SET', KEYS[1], string.format('%.0f', free), 'PX', life)
end

local free = math.max(whole(text_of(KEYS[1], 20), 2 ^ 53) or now, now)
if free > full then
    -- The clock was set back, the rate was raised, or another program wrote the key.
    free = full
    keep(free)
end
free = free + interval
if free > full then
    return free - full
end
keep(free)
return 0
