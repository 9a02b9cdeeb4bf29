-- Opens records. ARGV: 3 milliseconds until an unconfirmed publication is due, then thirteen per job. Returns per job:
-- 0 for a new job; 1 if the id has another pool or input; 2 for a known job, with the fence of the missing publication
-- and the record.
local answers = {}
for at = 4, #ARGV, OPEN_FIELDS do
    local id = ARGV[at]
    local known = redis.call('HMGET', job_key(id), 'pool', 'digest', 'state', 'fence', 'confirmed')
    local answer
    if not known[1] then
        open(at)
        add_arrival(ARGV[at + 1])
        redis.call('ZADD', DUE, now + ARGV[3], id)
        answer = { 0, false, {}, false }
    elseif known[1] ~= ARGV[at + 1] or known[2] ~= ARGV[at + 8] then
        answer = { 1, false, {}, false }
    else
        local unpublished = tonumber(known[3]) == QUEUED and known[4] ~= known[5] and redis.call('ZSCORE', DUE, id)
        answer = { 2, unpublished and known[4], record(id) }
    end
    answers[#answers + 1] = answer
end
publish_changes()
return answers
