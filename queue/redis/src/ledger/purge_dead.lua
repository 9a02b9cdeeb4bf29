-- Forgets jobs that `dead` lists. ARGV: 3 the list, 4 how many at most. Answers how many, and the blobs of them.
local list, blobs = PREFIX .. ARGV[3], {}
local ids = redis.call('ZRANGE', list, 0, ARGV[4] - 1)
for _, id in ipairs(ids) do
    local job = find(id)
    if job then forget(job, blobs) else redis.call('ZREM', list, id) end
end
return { #ids, blobs }
