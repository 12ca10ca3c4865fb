-- Begins a guess at an account's password.
-- KEYS: the failures from this network; those from everywhere; the guesses under way;
-- whether the account's owner was here. Then, where others are counted apart, their
-- failures from this network, those from everywhere, and whether the owner was here among
-- them: these are only read.
-- ARGV: the failures that cost nothing, the guesses under way besides, how long one
-- takes at most (ms), the longest wait (ms).
-- Returns how long nobody may guess from here (ms), 0 where the guess has begun.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local free, besides = tonumber(ARGV[1]), tonumber(ARGV[2])
local life, longest = tonumber(ARGV[3]), tonumber(ARGV[4])

-- How long the failures under a key make guessers wait. A wait that is longer than the
-- longest began while Redis's clock was ahead: it begins anew, now.
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

-- The same of a key that is only read.
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

-- Guesses that are under way for longer than one takes began while the clock was ahead.
local left = redis.call('PTTL', KEYS[3])
if left > life or left == -1 then
    redis.call('UNLINK', KEYS[3])
end
-- Those under way may all be wrong. Once there were too many failures they come one by
-- one.
local failures = whole(field_of(KEYS[1], 'failures', 20), 1e6) or 0
local underway = whole(text_of(KEYS[3], 20), 1e6) or 0
local room = math.max(free - failures + besides, 1)
if failures >= free then
    room = 1
end
if underway >= room then
    return 1000
end
redis.call('SET', KEYS[3], underway + 1, 'PX', ARGV[3])
return 0
