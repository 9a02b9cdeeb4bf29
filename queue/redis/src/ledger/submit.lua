-- Opens records, and publishes the jobs if their entries are given. ARGV: 3 milliseconds until an unconfirmed publication is
-- due, 4 milliseconds until a confirmed one is repeated; then per job: thirteen from which its record is opened, the number
-- of those that follow, and if it is not 0: the stream of its entry, and the fields except `data`. Returns per job: 0 for a
-- new job; 1 if the id has another pool or input; 2 for a known job, with the fence of the publication that was missing
-- and the record.

-- Adds the entry. It comes before the other writes, because Redis does not undo the writes of a script that fails.
local function publish(at)
    local fields_at = at + OPEN_FIELDS + 1
    redis.call('XADD', ARGV[fields_at], '*', 'data', ARGV[at + 11],
        unpack(ARGV, fields_at + 1, at + OPEN_FIELDS + ARGV[at + OPEN_FIELDS]))
end

local function submit(at, is_published)
    local id = ARGV[at]
    local known = redis.call('HMGET', job_key(id), 'pool', 'digest', 'state', 'fence', 'confirmed')
    if not known[1] then
        if is_published then publish(at) end
        open(at, is_published)
        add_arrival(ARGV[at + 1])
        if is_published then
            redis.call('ZADD', DUE, math.min(now + ARGV[4], tonumber(ARGV[at + 5]) or math.huge), id)
        else
            redis.call('ZADD', DUE, now + ARGV[3], id)
        end
        return { 0, false, {}, false }
    end
    if known[1] ~= ARGV[at + 1] or known[2] ~= ARGV[at + 8] then return { 1, false, {}, false } end
    local unpublished = tonumber(known[3]) == QUEUED and known[4] ~= known[5] and redis.call('ZSCORE', DUE, id)
    if unpublished and is_published then
        publish(at)
        confirm_publication(id, known[4], ARGV[4])
    end
    return { 2, unpublished and known[4], record(id) }
end

local answers, at = {}, 5
while at <= #ARGV do
    local further = tonumber(ARGV[at + OPEN_FIELDS])
    answers[#answers + 1] = try(submit, at, further > 0)
    at = at + OPEN_FIELDS + 1 + further
end
return answer_batch(answers)
