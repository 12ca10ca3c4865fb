-- Returns 1 when a stream has an entry for an event, else 0. KEYS: the stream. ARGV: the id of
-- the entry, the id of the event. The script compares the entry and does not return it, because
-- an entry of another program may have any size.
local entry = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if entry and entry[2][1] == 'id' and entry[2][2] == ARGV[2] then
    return 1
end
return 0
