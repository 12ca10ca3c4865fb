-- Ends a guess that was wrong, or that has no result.
--
-- KEYS: the first four keys of `guess.lua`. ARGV: number of failures without a wait, from one
-- network and from all networks; first wait (ms); maximum wait (ms); time that failures are
-- kept (s); 1 when the password was wrong.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if (whole(text_of(KEYS[3], 20), 1e6) or 0) > 0 then
    redis.call('DECR', KEYS[3])
end
if ARGV[6] ~= '1' then
    return 0
end
for i = 1, 2 do
    local failures = math.min((whole(field_of(KEYS[i], 'failures', 20), 1e6) or 0) + 1, 1e6)
    redis.call('HSET', KEYS[i], 'failures', failures)
    local beyond = failures - tonumber(ARGV[i])
    if beyond >= 0 then
        local wait = math.min(tonumber(ARGV[3]) * 2 ^ math.min(beyond, 30), tonumber(ARGV[4]))
        redis.call('HSET', KEYS[i], 'until', string.format('%.0f', now + wait))
    end
    redis.call('EXPIRE', KEYS[i], ARGV[5])
end
return 0
