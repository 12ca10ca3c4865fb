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

local function keep(free)
    local life = math.ceil((free - now) / 1000) + 1
    redis.call('SET', KEYS[1], string.format('%.0f', free), 'PX', life)
end

local free = math.max(whole(text_of(KEYS[1], 20), 2 ^ 53) or now, now)
if free > full then
    -- The clock was set back, the rate was raised, or the key is none of ours.
    free = full
    keep(free)
end
free = free + interval
if free > full then
    return free - full
end
keep(free)
return 0
