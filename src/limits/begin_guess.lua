-- Begins a guess at an account's password. `src/redis/values.lua` has the functions that read
-- values.
--
-- KEYS: failures from this network (1) and from all networks (2); guesses in flight from this
-- network (3); the mark that the owner signed in from this network (4). If the guess does not name
-- the tenant, these keys count only guesses without a tenant, and three more keys count the guesses
-- that name the tenant: failures from this network (5) and from all networks (6); the mark of the
-- owner (7). The script never sets a wait or counts a guess under keys 5 to 7.
--
-- ARGV: number of failures without a wait; maximum number of guesses in flight in addition to
-- them; timeout of a guess in flight (ms); maximum wait (ms).
--
-- Returns the time until a guess is allowed (ms), or 0 when the guess has begun.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local free_failures, extra_in_flight = tonumber(ARGV[1]), tonumber(ARGV[2])
local in_flight_timeout, max_wait = tonumber(ARGV[3]), tonumber(ARGV[4])

-- The wait (ms) that the failures under a key require. A wait longer than the maximum began
-- while the clock of Redis was ahead: this wait is set to the maximum, from now on.
local function wait_of(key)
    local wait_end = tonumber(field_of(key, 'until', 24) or 0) or 0
    -- Only NaN is not equal to itself.
    if wait_end ~= wait_end or wait_end <= now then
        return 0
    end
    if wait_end - now > max_wait then
        redis.call('HSET', key, 'until', string.format('%.0f', now + max_wait))
        redis.call('PEXPIRE', key, ARGV[4])
        return max_wait
    end
    return wait_end - now
end

-- Like `wait_of`, but does not set a wait that is too long.
local function read_wait_of(key)
    local wait_end = tonumber(field_of(key, 'until', 24) or 0) or 0
    if wait_end ~= wait_end then
        return 0
    end
    return math.max(math.min(wait_end - now, max_wait), 0)
end

local owner_signed_in_here = redis.call('EXISTS', KEYS[4]) == 1
local wait = wait_of(KEYS[1])
if KEYS[5] then
    owner_signed_in_here = owner_signed_in_here or redis.call('EXISTS', KEYS[7]) == 1
    wait = math.max(wait, read_wait_of(KEYS[5]))
    if not owner_signed_in_here then
        wait = math.max(wait, read_wait_of(KEYS[6]))
    end
end
if not owner_signed_in_here then
    wait = math.max(wait, wait_of(KEYS[2]))
end
if wait > 0 then
    return wait
end

-- A time to live longer than the timeout of a guess means that the clock of Redis was ahead.
local time_to_live = redis.call('PTTL', KEYS[3])
if time_to_live > in_flight_timeout or time_to_live == -1 then
    redis.call('UNLINK', KEYS[3])
end
-- All guesses in flight may turn out wrong. Once the failures without a wait are used up, only
-- one guess at a time is allowed.
local failures = whole(field_of(KEYS[1], 'failures', 20), 1e6) or 0
local in_flight = whole(text_of(KEYS[3], 20), 1e6) or 0
local max_in_flight = math.max(free_failures - failures + extra_in_flight, 1)
if failures >= free_failures then
    max_in_flight = 1
end
if in_flight >= max_in_flight then
    -- Too many guesses are in flight: the next attempt is allowed after one second.
    return 1000
end
redis.call('SET', KEYS[3], in_flight + 1, 'PX', ARGV[3])
return 0
