#!lua flags=no-writes
-- Counts streams, six per pool. Answers per pool: of each stream what waits, what is held, and the id that the first of
-- what waits had when it was published; 0 where there are no streams; or, of a pool that cannot be read, why.
-- Of what was given back, a later one may be older; looking for it would read inputs: too much for a reading.
local STREAMS = 6

local function depth(key, given_back)
  local length, held, last_id, first_id = redis.call('XLEN', key), 0, '0-0', ''
  if length > 0 then
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', key)) do
      local of = {}
      for at = 1, #group, 2 do of[group[at]] = group[at + 1] end
      if of['name'] == 'workers' then held, last_id = of['pending'], of['last-delivered-id'] end
    end
    local first = redis.call('XRANGE', key, '(' .. last_id, '+', 'COUNT', 1)[1]
    if first then first_id = given_back and first[2][2] or first[1] end
  end
  return { length - held, held, first_id }
end

local function depths_of(before)
  if redis.call('EXISTS', unpack(KEYS, before + 1, before + STREAMS)) == 0 then return 0 end
  local depths = {}
  for stream = 1, STREAMS do depths[stream] = depth(KEYS[before + stream], stream % 2 == 1) end
  return depths
end

local answers = {}
for before = 0, #KEYS - 1, STREAMS do
  local is_read, answer = pcall(depths_of, before)
  answers[#answers + 1] = is_read and answer or (type(answer) == 'table' and answer.err or tostring(answer))
end
return answers
