-- Renews leases. ARGV: 3 milliseconds, then id and fence in turn. Returns for each whether the lease is valid.
local function renew(id, fence)
    if not is_lease_valid(find(id), fence) then return 0 end
    redis.call('ZADD', DUE, now + ARGV[3], id)
    return 1
end

local answers = {}
for at = 4, #ARGV, 2 do answers[#answers + 1] = try(renew, ARGV[at], ARGV[at + 1]) or 0 end
return answer_batch(answers)
