-- Opens records in state `queued` from thirteen arguments, beginning at ARGV[at]. Redis formats numbers of Lua slowly, so the
-- constants are texts here.
local OPEN_FIELDS = 13
local QUEUED_TEXT = tostring(QUEUED)
local CONFIRMED, UNCONFIRMED = { 'confirmed', '0' }, {}

-- Opens a record. Its publication may be confirmed already. Its input is written apart.
local function open_without_input(at, is_confirmed)
    local key, pool = job_key(ARGV[at]), ARGV[at + 1]
    local deadline_at, trace_parent, blob, origin = ARGV[at + 5], ARGV[at + 7], ARGV[at + 10], ARGV[at + 12]
    redis.call('HSET', key, 'pool', pool, 'class', ARGV[at + 2], 'state', QUEUED_TEXT, 'attempts', '0', 'max_attempts',
        ARGV[at + 3], 'fence', '0', 'lost', '0', 'begun', '0', 'created_at', ARGV[at + 4], 'retention', ARGV[at + 6],
        'digest', ARGV[at + 8], 'media_type', ARGV[at + 9], unpack(is_confirmed and CONFIRMED or UNCONFIRMED))
    if deadline_at ~= '' then redis.call('HSET', key, 'deadline_at', deadline_at) end
    if trace_parent ~= '' then redis.call('HSET', key, 'trace_parent', trace_parent) end
    if blob ~= '' then redis.call('HSET', key, 'blob', blob) end
    if origin ~= '' then redis.call('HSET', key, 'origin', origin) end
    count(pool, 'queued', 1)
end

local function open(at)
    if ARGV[at + 10] == '' then redis.call('SET', input_key(ARGV[at]), ARGV[at + 11]) end
    open_without_input(at, false)
end
