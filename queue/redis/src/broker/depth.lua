#!lua flags=no-writes
-- Counts the entries of pools, each given by its six streams. Returns one answer per pool. It has three values per
-- stream: the number of waiting entries, the number of held entries, and the id of the first waiting entry. The answer
-- is 0 if no stream exists, and an error if the pool cannot be read. The id is the one with which the entry was
-- published. In a stream of requeued entries, a later entry may be older than the first. To find it, the script would
-- read all inputs, which costs too much here.
local STREAMS = 6

local function depth(key, is_requeued)
  local length, held, last_id, first_id = redis.call('XLEN', key), 0, '0-0', ''
  if length > 0 then
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', key)) do
      local of = {}
      for at = 1, #group, 2 do of[group[at]] = group[at + 1] end
      if of['name'] == 'workers' then held, last_id = of['pending'], of['last-delivered-id'] end
    end
    local first = redis.call('XRANGE', key, '(' .. last_id, '+', 'COUNT', 1)[1]
    if first then first_id = is_requeued and first[2][2] or first[1] end
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
