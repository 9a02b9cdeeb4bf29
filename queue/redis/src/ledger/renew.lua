-- Renews leases. ARGV: 3 milliseconds, then id and fence in turn. Returns for each whether the lease is valid.
local answers = {}
for at = 4, #ARGV, 2 do
    local is_valid = is_lease_valid(find(ARGV[at]), ARGV[at + 1])
    if is_valid then redis.call('ZADD', DUE, now + ARGV[3], ARGV[at]) end
    answers[#answers + 1] = is_valid and 1 or 0
end
return answers
