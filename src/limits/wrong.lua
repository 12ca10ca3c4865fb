-- A guess was wrong, or ended without an answer.
-- KEYS: as when it began. ARGV: the failures that cost nothing, here and everywhere; the
-- first wait, the longest wait (ms); how long failures are remembered (s); 1 where it
-- was wrong.
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
