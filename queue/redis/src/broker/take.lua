-- Takes up to `max` entries, the most urgent first, and stops when their values have at least `bytes` bytes. Records a
-- heartbeat first, so that every consumer with entries has one.
local consumer, max, offset, bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
-- An entry that was read is taken, so only the number of entries read together bounds the excess.
local PART = 16
redis.call('ZADD', KEYS[7], now(offset), consumer)
local taken = {}

-- Takes one part. Returns `false` if the stream may have no more entries, and an error.
local function take(stream)
  local count = math.min(max, PART)
  local read = { 'XREADGROUP', 'GROUP', 'workers', consumer, 'COUNT', count, 'STREAMS', KEYS[stream], '>' }
  local found = redis.pcall(unpack(read))
  if found and found.err then
    if not string.find(found.err, '^NOGROUP') then return false, found end
    redis.call('XGROUP', 'CREATE', KEYS[stream], 'workers', '0', 'MKSTREAM')
    found = redis.call(unpack(read))
  end
  if not found then return false end
  local entries = found[1][2]
  for _, entry in ipairs(entries) do
    -- An entry that was deleted meanwhile has no fields.
    local fields = entry[2] or {}
    for at = 2, #fields, 2 do bytes = bytes - #fields[at] end
  end
  max = max - #entries
  taken[#taken + 1] = { stream, entries }
  return #entries == count
end

for stream = 1, 6 do
  local has_more = true
  while has_more and max > 0 and bytes > 0 do
    local problem
    has_more, problem = take(stream)
    if problem then return problem end
  end
end
return taken
