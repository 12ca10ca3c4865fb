-- Ends a guess whose password matched: deletes the counts of failures and of guesses in flight, and
-- marks that the owner signed in from this network.
--
-- KEYS: the first four keys of `begin_guess.lua`. ARGV: time that the mark is kept (s).
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
redis.call('SET', KEYS[4], '1', 'EX', ARGV[1])
return 0
