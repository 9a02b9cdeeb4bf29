-- Takes or keeps the upkeep. ARGV: 3 the holder, 4 milliseconds of its lease (0 gives it up). Returns whether the holder has
-- it.
local key, holder, lease = PREFIX .. 'upkeep', ARGV[3], tonumber(ARGV[4])
local found = redis.call('HMGET', key, 'holder', 'held_until')
if lease == 0 then
    if found[1] == holder then redis.call('DEL', key) end
    return 0
end
-- A gap must be noticed before the look is recorded.
end_of_gap()
record_look()
local held_until = tonumber(found[2] or '0')
-- An end beyond a whole lease means that the clock was set back.
local is_valid = held_until > now and held_until <= now + lease
if is_valid and found[1] ~= holder then return 0 end
-- Few writes are enough, because each may wait for the disk.
if not is_valid or held_until - now <= lease / 2 then
    redis.call('HSET', key, 'holder', holder, 'held_until', now + lease)
end
return 1
