-- Lists failed or dead jobs, the last to end first. ARGV: 3 the list, 4 how many at most, and to go on from a position:
-- 5 when its job ended, 6 that job's id. Answers whether there are more, then per job: id, when it ended,
-- fields and values in turn.
local list, limit = PREFIX .. ARGV[3], tonumber(ARGV[4])

-- By bytes, as a sorted set orders members of one score; `<` would go by the server's locale.
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
