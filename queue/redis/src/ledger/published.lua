-- Confirms publications. ARGV: 3 milliseconds until each is repeated, then id and fence in turn.
for at = 4, #ARGV, 2 do try(confirm_publication, ARGV[at], ARGV[at + 1], ARGV[3]) end
return answer_batch({})
