-- Extends leases. ARGV: 3 milliseconds, then id and fence in turn. Answers for each whether it still holds.
local answers = {}
for at = 4, #ARGV, 2 do
    local held = is_held(find(ARGV[at]), ARGV[at + 1])
    if held then redis.call('ZADD', DUE, now + ARGV[3], ARGV[at]) end
    answers[#answers + 1] = held and 1 or 0
end
return answers
