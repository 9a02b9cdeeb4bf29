#!lua flags=no-writes
-- Counts each stream: what waits, what is held, and the id that the first of what waits had when it was published.
-- Of what was given back, a later one may be older; looking for it would read inputs: too much for a reading.
local depths = {}
for stream = 1, 6 do
  local key = KEYS[stream]
  local length, held, last_id, first_id = redis.call('XLEN', key), 0, '0-0', ''
  if length > 0 then
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', key)) do
      local of = {}
      for at = 1, #group, 2 do of[group[at]] = group[at + 1] end
      if of['name'] == 'workers' then held, last_id = of['pending'], of['last-delivered-id'] end
    end
    local first = redis.call('XRANGE', key, '(' .. last_id, '+', 'COUNT', 1)[1]
    if first then first_id = stream % 2 == 1 and first[2][2] or first[1] end
  end
  depths[stream] = { length - held, held, first_id }
end
return depths
