-- Functions that read keys to which other programs may have written. A value whose type or size
-- shows that Tenantry did not write it is removed and treated as absent. The size is checked first,
-- so that no oversized value is copied or sent.

-- Whether the key has this type. Removes a key of another type.
local function is_of_type(key, expected_type)
    local actual_type = redis.call('TYPE', key).ok
    if actual_type ~= expected_type and actual_type ~= 'none' then
        redis.call('UNLINK', key)
    end
    return actual_type == expected_type
end

-- The text of a key, if it has at most `max_bytes` bytes; nil when there is no text.
local function text_of(key, max_bytes)
    if not is_of_type(key, 'string') then
        return nil
    end
    if redis.call('STRLEN', key) > max_bytes then
        redis.call('UNLINK', key)
        return nil
    end
    return redis.call('GET', key)
end

-- The text of a field of a hash, if it has at most `max_bytes` bytes; nil when there is no text.
local function field_of(key, name, max_bytes)
    if not is_of_type(key, 'hash') then
        return nil
    end
    if redis.call('HSTRLEN', key, name) > max_bytes then
        redis.call('HDEL', key, name)
        return nil
    end
    return redis.call('HGET', key, name) or nil
end

-- The whole number from 0 to `max` in a text; nil for any other text, or without a text.
local function whole(text, max)
    local number = text and tonumber(text)
    if number and number >= 0 and number <= max and string.format('%.0f', number) == text then
        return number
    end
    return nil
end

