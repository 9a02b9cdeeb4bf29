#!lua flags=allow-oom
-- What several scripts need. They run when memory is full too, or nothing could be taken and settled to make room.

-- Now, in milliseconds; `offset` is 0 but in tests.
local function now(offset)
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000) + offset
end

-- Takes an entry from its holder and lets it wait again, before what came after it; nothing if the holder lost it already.
-- It is added before it is taken away: a script that fails undoes nothing.
local function give_back(stream, id, redelivered)
  local key = KEYS[stream]
  local pending = redis.pcall('XPENDING', key, 'workers', id, id, 1)
  if pending.err or #pending == 0 then return end
  local entry = redis.call('XRANGE', key, id, id)[1]
  if entry then
    local fields, given_back = entry[2], stream % 2 == 1
    local first_id = given_back and fields[2] or id
    if given_back and fields[4] == '1' then redelivered = '1' end
    -- No more values than Lua can pass; no event has as many.
    local last = math.min(#fields, 4000)
    redis.call('XADD', KEYS[given_back and stream or stream - 1], '*', 'first_id', first_id, 'redelivered', redelivered,
      unpack(fields, given_back and 5 or 1, last))
  end
  redis.call('XACK', key, 'workers', id)
  redis.call('XDEL', key, id)
end

-- Gives back at most `limit` entries of a consumer and, if that was all, removes it from the stream; how many they were.
local function retire(stream, consumer, limit)
  local key = KEYS[stream]
  local held = redis.pcall('XPENDING', key, 'workers', '-', '+', limit, consumer)
  if held.err then return 0 end
  for _, entry in ipairs(held) do give_back(stream, entry[1], '1') end
  if #held < limit then redis.call('XGROUP', 'DELCONSUMER', key, 'workers', consumer) end
  return #held
end
