-- Ends a guess. If the password was wrong, counts a failure and sets the next wait.
-- `src/redis/values.lua` has the functions that read values.
--
-- KEYS: the first four keys of `begin_guess.lua`. ARGV: number of failures without a wait, from
-- one network (1) and from all networks (2); first wait (ms) (3); maximum wait (ms) (4); time that
-- failures are kept (s) (5); 1 when the password was wrong, 0 when the guess has no result (6).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if (whole(text_of(KEYS[3], 20), 1e6) or 0) > 0 then
    redis.call('DECR', KEYS[3])
end
if ARGV[6] ~= '1' then
    return 0
end
-- First the failures from this network, then the failures from all networks.
for i = 1, 2 do
    local failures = math.min((whole(field_of(KEYS[i], 'failures', 20), 1e6) or 0) + 1, 1e6)
    redis.call('HSET', KEYS[i], 'failures', failures)
    local doublings = failures - tonumber(ARGV[i])
    if doublings >= 0 then
        local wait = math.min(tonumber(ARGV[3]) * 2 ^ math.min(doublings, 30), tonumber(ARGV[4]))
        redis.call('HSET', KEYS[i], 'until', string.format('%.0f', now + wait))
    end
    redis.call('EXPIRE', KEYS[i], ARGV[5])
end
return 0
