-- Whether a stream has an event.
-- KEYS: the stream. ARGV: the entry's id, the event's id. Returns 1 where it has it.
-- The entry stays here: what it holds may be of any size.
local entry = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if entry and entry[2][1] == 'id' and entry[2][2] == ARGV[2] then
    return 1
end
return 0
