-- A guess was right: what was wrong before is forgotten, and the owner was here.
-- KEYS: as when it began. ARGV: how long that is remembered (s).
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
redis.call('SET', KEYS[4], '1', 'EX', ARGV[1])
return 0
