-- Measures the records of some ended jobs, chosen by chance. ARGV: 3 their number. Returns their number and the bytes of
-- their keys; nothing if the server forbids it.
local sample, bytes = redis.call('ZRANDMEMBER', OVER, ARGV[3]), 0
for _, id in ipairs(sample) do
    for _, key in ipairs({ job_key(id), input_key(id), output_key(id), attempts_key(id) }) do
        local usage = redis.pcall('MEMORY', 'USAGE', key)
        if type(usage) == 'table' then return { 0, 0 } end
        bytes = bytes + (usage or 0)
    end
end
return { #sample, bytes }
