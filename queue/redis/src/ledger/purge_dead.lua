-- Deletes jobs of a list of failed or dead jobs. ARGV: 3 the list, 4 the most jobs. Returns their number and their blob
-- references.
local list, blobs = PREFIX .. ARGV[3], {}
local ids = redis.call('ZRANGE', list, 0, ARGV[4] - 1)
for _, id in ipairs(ids) do
    local job = find(id)
    if job then delete_job(job, blobs) else redis.call('ZREM', list, id) end
end
return { #ids, blobs }
