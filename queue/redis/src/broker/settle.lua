-- Settles deliveries, each a stream, an id and how. An id is held by one consumer or by none: given back, it is another.
for at = 1, #ARGV, 3 do
  local stream, id, how = tonumber(ARGV[at]), ARGV[at + 1], ARGV[at + 2]
  if how == 'again' then
    give_back(stream, id, '1')
  elseif how == 'untouched' then
    give_back(stream, id, '0')
  elseif redis.call('XACK', KEYS[stream], 'workers', id) == 1 then
    redis.call('XDEL', KEYS[stream], id)
  end
end
