-- Reads of keys that anybody who can write to Redis may have filled. What can't be ours, by
-- its type or its size, is removed and counts as absent. The size is asked first: nothing
-- that is too large is copied, or sent.

-- Whether the key is of this type; one of another type is removed.
local function is_of_type(key, wanted)
    local found = redis.call('TYPE', key).ok
    if found ~= wanted and found ~= 'none' then
        redis.call('UNLINK', key)
    end
    return found == wanted
end

-- The key's text, of at most `longest` bytes; nil without one.
local function text_of(key, longest)
    if not is_of_type(key, 'string') then
        return nil
    end
    if redis.call('STRLEN', key) > longest then
        redis.call('UNLINK', key)
        return nil
    end
    return redis.call('GET', key)
end

-- The text of a hash's field, of at most `longest` bytes; nil without one.
local function field_of(key, name, longest)
    if not is_of_type(key, 'hash') then
        return nil
    end
    if redis.call('HSTRLEN', key, name) > longest then
        redis.call('HDEL', key, name)
        return nil
    end
    return redis.call('HGET', key, name) or nil
end

-- The whole number from 0 to `most` that a text is; nil for any other text, and without one.
local function whole(text, most)
    local number = text and tonumber(text)
    if number and number >= 0 and number <= most and string.format('%.0f', number) == text then
        return number
    end
    return nil
end

