-- Begins a guess at an account's password.
--
-- KEYS: failures from this network; failures from all networks; guesses in flight from this
-- network; the mark that the owner signed in from this network. For a guess that does not name
-- the tenant, also the counters of guesses that name it: failures from this network, failures
-- from all networks, and the mark of the owner. These are only read.
--
-- ARGV: number of failures without a wait; maximum number of guesses in flight in addition to
-- them; timeout of a guess in flight (ms); maximum wait (ms).
--
-- Returns the time until a guess is allowed (ms), or 0 when the guess has begun.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local free, extra_in_flight = tonumber(ARGV[1]), tonumber(ARGV[2])
local in_flight_timeout, longest = tonumber(ARGV[3]), tonumber(ARGV[4])

-- The wait (ms) that the failures under a key require. A wait longer than the maximum began
-- while the clock of Redis was ahead: it is set to the maximum, from now on.
local function wait_of(key)
    local ends = tonumber(field_of(key, 'until', 24) or 0) or 0
    if ends ~= ends or ends <= now then
        return 0
    end
    if ends - now > longest then
        redis.call('HSET', key, 'until', string.format('%.0f', now + longest))
        redis.call('PEXPIRE', key, ARGV[4])
        return longest
    end
    return ends - now
end

-- The same for a key that is only read.
local function read_wait_of(key)
    local ends = tonumber(field_of(key, 'until', 24) or 0) or 0
    if ends ~= ends then
        return 0
    end
    return math.max(math.min(ends - now, longest), 0)
end

local known = redis.call('EXISTS', KEYS[4]) == 1
local wait = wait_of(KEYS[1])
if KEYS[5] then
    known = known or redis.call('EXISTS', KEYS[7]) == 1
    wait = math.max(wait, read_wait_of(KEYS[5]))
    if not known then
        wait = math.max(wait, read_wait_of(KEYS[6]))
    end
end
if not known then
    wait = math.max(wait, wait_of(KEYS[2]))
end
if wait > 0 then
    return wait
end

-- A longer time to live than the timeout of a guess means that the clock of Redis was ahead.
local left = redis.call('PTTL', KEYS[3])
if left > in_flight_timeout or left == -1 then
    redis.call('UNLINK', KEYS[3])
end
-- All guesses in flight may turn out wrong. Once the failures without a wait are used up, only
-- one guess at a time is allowed.
local failures = whole(field_of(KEYS[1], 'failures', 20), 1e6) or 0
local underway = whole(text_of(KEYS[3], 20), 1e6) or 0
local room = math.max(free - failures + extra_in_flight, 1)
if failures >= free then
    room = 1
end
if underway >= room then
    return 1000
end
redis.call('SET', KEYS[3], underway + 1, 'PX', ARGV[3])
return 0
