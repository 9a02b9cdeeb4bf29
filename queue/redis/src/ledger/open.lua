-- Opens a record in state `queued` from thirteen arguments, beginning at ARGV[at]. Its publication may be confirmed already.
local OPEN_FIELDS = 13
local function open(at, is_confirmed)
    local id, pool, body = ARGV[at], ARGV[at + 1], ARGV[at + 11]
    local fields = { 'pool', pool, 'class', ARGV[at + 2], 'state', QUEUED, 'attempts', 0, 'max_attempts', ARGV[at + 3],
        'fence', 0, 'lost', 0, 'begun', 0, 'created_at', ARGV[at + 4], 'retention', ARGV[at + 6],
        'digest', ARGV[at + 8], 'media_type', ARGV[at + 9] }
    local function optional(name, value)
        if value ~= '' then
            fields[#fields + 1] = name
            fields[#fields + 1] = value
        end
    end
    if is_confirmed then optional('confirmed', 0) end
    optional('deadline_at', ARGV[at + 5])
    optional('trace_parent', ARGV[at + 7])
    optional('blob', ARGV[at + 10])
    optional('origin', ARGV[at + 12])
    redis.call('HSET', job_key(id), unpack(fields))
    if ARGV[at + 10] == '' then redis.call('SET', input_key(id), body) end
    count(pool, 'queued', 1)
end
