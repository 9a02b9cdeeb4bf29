-- Settles entries, each given by stream, id and disposition. At most one consumer ever holds an id, because requeueing
-- gives the entry a new one.
for at = 1, #ARGV, 3 do
  local stream, id, disposition = tonumber(ARGV[at]), ARGV[at + 1], ARGV[at + 2]
  if disposition == 'requeue' then
    requeue(stream, id, '1')
  elseif disposition == 'requeue_unseen' then
    requeue(stream, id, '0')
  elseif redis.call('XACK', KEYS[stream], 'workers', id) == 1 then
    redis.call('XDEL', KEYS[stream], id)
  end
end
