#!lua flags=allow-oom
-- Functions that several scripts need. The scripts run even when memory is full. Otherwise no consumer could take and
-- settle entries to free memory.

-- The time in milliseconds. `offset` is 0 except in tests.
local function now(offset)
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000) + offset
end

-- Requeues a held entry, before the entries that came after it. Does nothing if the consumer no longer holds it.
-- The copy is added before the entry is deleted, because Redis does not undo the writes of a script that fails.
local function requeue(stream, id, redelivered)
  local key = KEYS[stream]
  local pending = redis.pcall('XPENDING', key, 'workers', id, id, 1)
  if pending.err or #pending == 0 then return end
  local entry = redis.call('XRANGE', key, id, id)[1]
  if entry then
    local fields, was_requeued = entry[2], stream % 2 == 1
    local first_id = was_requeued and fields[2] or id
    if was_requeued and fields[4] == '1' then redelivered = '1' end
    -- Lua can pass only a limited number of values. No event has this many.
    local last = math.min(#fields, 4000)
    redis.call('XADD', KEYS[was_requeued and stream or stream - 1], '*', 'first_id', first_id, 'redelivered', redelivered,
      unpack(fields, was_requeued and 5 or 1, last))
  end
  redis.call('XACK', key, 'workers', id)
  redis.call('XDEL', key, id)
end

-- Requeues at most `limit` entries of a consumer and returns their number. Removes the consumer from the stream's group if
-- it held fewer.
local function remove_consumer(stream, consumer, limit)
  local key = KEYS[stream]
  local held = redis.pcall('XPENDING', key, 'workers', '-', '+', limit, consumer)
  if held.err then return 0 end
  for _, entry in ipairs(held) do requeue(stream, entry[1], '1') end
  if #held < limit then redis.call('XGROUP', 'DELCONSUMER', key, 'workers', consumer) end
  return #held
end
