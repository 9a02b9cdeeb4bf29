-- Opens records, and publishes the jobs if their entries are given. ARGV: 3 milliseconds until an unconfirmed publication is
-- due, 4 milliseconds until a confirmed one is repeated; then per job: thirteen from which its record is opened, the number
-- of those that follow, and if it is not 0: the stream of its entry, and the fields except `data`. Returns per job: nil for a
-- new job; 1 if the id has another pool or input; 2 for a known job, with the fence of the publication that was missing
-- and the record.
local check_at = now + ARGV[4]
local publish_until_text, check_at_text = whole(now + ARGV[3]), whole(check_at)

local function is_published(at) return ARGV[at + OPEN_FIELDS] ~= '0' end

local function publish(at)
    local fields_at = at + OPEN_FIELDS + 1
    return redis.call('XADD', ARGV[fields_at], '*', 'data', ARGV[at + 11],
        unpack(ARGV, fields_at + 1, at + OPEN_FIELDS + ARGV[at + OPEN_FIELDS]))
end

local function due_at_text(at)
    if not is_published(at) then return publish_until_text end
    local deadline_at = tonumber(ARGV[at + 5])
    return deadline_at and deadline_at < check_at and ARGV[at + 5] or check_at_text
end

-- Opens the records of new jobs. Redis does not undo the writes of a script that fails, so a record is written after its
-- entry, its due time and its input.
local function open_all(jobs)
    local opening, due, inputs = {}, { DUE }, {}
    for _, at in ipairs(jobs) do
        if not is_published(at) or try(publish, at) then
            opening[#opening + 1] = at
            due[#due + 1] = due_at_text(at)
            due[#due + 1] = ARGV[at]
            if ARGV[at + 10] == '' then
                inputs[#inputs + 1] = input_key(ARGV[at])
                inputs[#inputs + 1] = ARGV[at + 11]
            end
        end
    end
    if #opening == 0 then return end
    redis.call('ZADD', unpack(due))
    if #inputs > 0 then redis.call('MSET', unpack(inputs)) end
    for _, at in ipairs(opening) do
        try(open_without_input, at, is_published(at))
        add_arrival(ARGV[at + 1])
    end
end

-- The answer for a job whose id has a record.
local function find(at)
    local id = ARGV[at]
    local known = redis.call('HMGET', job_key(id), 'pool', 'digest', 'state', 'fence', 'confirmed')
    if known[1] ~= ARGV[at + 1] or known[2] ~= ARGV[at + 8] then return { 1, false, {}, false } end
    local unpublished = tonumber(known[3]) == QUEUED and known[4] ~= known[5] and redis.call('ZSCORE', DUE, id)
    if unpublished and is_published(at) then
        publish(at)
        confirm_publication(id, known[4], ARGV[4])
    end
    return { 2, unpublished and known[4], record(id) }
end

local jobs, keys, at = {}, {}, 5
while at <= #ARGV do
    jobs[#jobs + 1] = at
    keys[#keys + 1] = job_key(ARGV[at])
    at = at + OPEN_FIELDS + 1 + ARGV[at + OPEN_FIELDS]
end
local answers = {}
if redis.call('EXISTS', unpack(keys)) == 0 then
    -- All are new, and only the second job with the same id finds a record.
    local new, is_opened = {}, {}
    for i, at in ipairs(jobs) do
        if not is_opened[ARGV[at]] then
            is_opened[ARGV[at]] = true
            answers[i] = false
            new[#new + 1] = at
        end
    end
    open_all(new)
end
-- One after the other, so that the entries are in the order of the jobs.
for i, at in ipairs(jobs) do
    if answers[i] == nil and redis.call('EXISTS', keys[i]) == 0 then
        open_all({ at })
        answers[i] = false
    elseif answers[i] == nil then
        answers[i] = try(find, at)
    end
end
return answer_batch(answers)
