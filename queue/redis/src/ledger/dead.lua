-- Lists failed or dead jobs, the last to end first. ARGV: 3 the list, 4 the most jobs. To continue after a job: 5 the time
-- at which it ended, 6 its id. Returns whether there are more jobs, then per job: id, the time at which it ended, fields
-- and values in turn.
local list, limit = PREFIX .. ARGV[3], tonumber(ARGV[4])

-- Compares by bytes, as a sorted set orders members with the same score. `<` would use the server's locale.
local function is_less(one, other)
    for at = 1, math.min(#one, #other) do
        local byte, other_byte = one:byte(at), other:byte(at)
        if byte ~= other_byte then return byte < other_byte end
    end
    return #one < #other
end

local ids, top = {}, '+inf'
if ARGV[5] then
    for _, id in ipairs(redis.call('ZREVRANGEBYSCORE', list, ARGV[5], ARGV[5])) do
        if #ids <= limit and is_less(id, ARGV[6]) then ids[#ids + 1] = id end
    end
    top = '(' .. ARGV[5]
end
for _, id in ipairs(redis.call('ZREVRANGEBYSCORE', list, top, '-inf', 'LIMIT', 0, limit + 1 - #ids)) do
    ids[#ids + 1] = id
end
local jobs = {}
for at = 1, math.min(#ids, limit) do
    jobs[at] = { ids[at], redis.call('ZSCORE', list, ids[at]), redis.call('HGETALL', job_key(ids[at])) }
end
return { #ids > limit and 1 or 0, jobs }
