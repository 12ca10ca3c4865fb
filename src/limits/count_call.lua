-- Counts a call if the call is within its rate (GCRA). `src/redis/values.lua` has the functions
-- that read values.
--
-- KEYS: the counter. ARGV: interval after which one more call is allowed (µs); number of calls
-- in a full burst.
--
-- Returns 0 when the call was counted. Otherwise counts nothing, and returns the time until the
-- next call is allowed (µs).
--
-- The counter's value is the time (µs) from which a full burst is allowed again. Each counted call
-- moves this time into the future by one interval.
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local max_reset_time = now + interval * burst

local function store(reset_time)
    local lifetime = math.ceil((reset_time - now) / 1000) + 1
    redis.call('SET', KEYS[1], string.format('%.0f', reset_time), 'PX', lifetime)
end

local reset_time = math.max(whole(text_of(KEYS[1], 20), 2 ^ 53) or now, now)
if reset_time > max_reset_time then
    -- The clock was set back, the rate's period was shortened, or another program wrote the key.
    reset_time = max_reset_time
    store(reset_time)
end
reset_time = reset_time + interval
if reset_time > max_reset_time then
    return reset_time - max_reset_time
end
store(reset_time)
return 0
