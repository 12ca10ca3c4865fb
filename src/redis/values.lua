-- Functions that read keys to which other programs may have written. A value that Tenantry
-- cannot have written, by its type or size, is removed and treated as absent. The size is
-- checked first, so that no oversized value is copied or sent.

-- Whether the key has this type. A key of another type is removed.
local function is_of_type(key, wanted)
    local found = redis.call('TYPE', key).ok
    if found ~= wanted and found ~= 'none' then
        redis.call('UNLINK', key)
    end
    return found == wanted
end

-- The key's text, of at most `longest` bytes; nil when it is absent.
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

-- The text of a hash's field, of at most `longest` bytes; nil when it is absent.
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

-- The whole number from 0 to `most` in a text; nil for any other text, or without a text.
local function whole(text, most)
    local number = text and tonumber(text)
    if number and number >= 0 and number <= most and string.format('%.0f', number) == text then
        return number
    end
    return nil
end

