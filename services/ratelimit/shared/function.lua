#!lua name=modelplane_ratelimit_VERSION
--[[
The buckets of services/ratelimit/gcra.py, decided on where all gateways see them. One call accounts for what was
handed out of leases, corrects claims, and then takes from every bucket that is needed or from none; nothing else
runs meanwhile.

Every number is a whole one below 2^53, which a double holds exactly: points in time are microseconds of the
server's clock, stretches of time are nanoseconds and at most 2^52 of them (52 days).

A bucket is one string of doubles, five and then three for each lease:
  last    the bucket's own time at its last change, in microseconds: the server's clock without its steps backwards
  ahead   how far the bucket's own time is ahead of the server's clock because of such steps
  offset  nanoseconds from `last` until the bucket is full
  given   nanoseconds given back so far, modulo 2^52
  born    the bucket's own time when it was made: claims from before are on a bucket that was full since
  holder  who holds the lease: a number that a gateway drew for its connection
  held    nanoseconds of refilling that the lease may still cost
  expires the bucket's own time when the lease is charged in full, if its holder has not been heard of
A bucket expires some time after it is full, when it is no different from a new one.

A lease keeps its units out of everybody else's reach but is not in the queue of refilling: what is handed out of
it is taken when its holder says so, the rest was never taken. So `offset + all held` never exceeds the limit, and
counting a take a little later than it was made only makes the next one wait longer.

The one argument is a string of doubles, as is the reply; `encode` and `decode` in function.py are the other side.
]]

local WRAP = 2 ^ 52
local STATE = '<ddddd'
local STATE_BYTES = 40
local LEASE = '<ddd'
local HEAD = '<ddddddd'
local CORRECTION = '<ddddddd'
local NEED = '<ddddddd'
-- A bucket stays a little longer than until it is full, so that a new one is not older than a claim on it seems.
local KEPT_MS = 60000

local function take(bucket, cost)
  bucket.offset = math.min(WRAP, bucket.offset + math.min(WRAP, cost))
  bucket.changed = true
end

local function open(key, clock_us)
  local bucket = {key = key, now = clock_us, ahead = 0, offset = 0, given = 0, born = clock_us, held = 0, leases = {}}
  local state = redis.call('GET', key)
  if not state then return bucket end
  local last
  last, bucket.ahead, bucket.offset, bucket.given, bucket.born = struct.unpack(STATE, state)
  bucket.now = clock_us + bucket.ahead
  if bucket.now < last then
    bucket.ahead = last - clock_us
    bucket.now = last
  end
  for position = STATE_BYTES + 1, #state, 24 do
    local holder, held, expires = struct.unpack(LEASE, state, position)
    if expires <= bucket.now then
      bucket.offset = math.max(bucket.offset, (expires - last) * 1000)
      take(bucket, held)
    else
      bucket.leases[holder] = {held = held, expires = expires}
      bucket.held = bucket.held + held
    end
  end
  bucket.offset = math.max(0, bucket.offset - (bucket.now - last) * 1000)
  return bucket
end

local function save(bucket)
  local parts = {struct.pack(STATE, bucket.now, bucket.ahead, bucket.offset, bucket.given, bucket.born)}
  for holder, lease in pairs(bucket.leases) do
    if lease.held > 0 then parts[#parts + 1] = struct.pack(LEASE, holder, lease.held, lease.expires) end
  end
  redis.call('SET', bucket.key, table.concat(parts), 'PX', math.ceil(bucket.offset / 1000000) + KEPT_MS)
end

local function hold(bucket, holder, held, expires)
  local lease = bucket.leases[holder]
  if not lease then
    if held <= 0 then return end
    lease = {held = 0}
    bucket.leases[holder] = lease
  end
  bucket.held = bucket.held + held - lease.held
  lease.held = held
  lease.expires = expires or lease.expires
  bucket.changed = true
end

-- What was handed out is taken. A lease that is not there any more was charged in full when it expired.
local function account(bucket, holder, handed_out, keep)
  local lease = bucket.leases[holder]
  if not lease then return end
  handed_out = math.min(handed_out, lease.held)
  if handed_out > 0 then take(bucket, handed_out) end
  hold(bucket, holder, keep == 1 and lease.held - handed_out or 0)
end

local function settle(bucket, interval, units, used, taken, start, given)
  if used >= units then return take(bucket, (used - units) * interval) end
  if taken < bucket.born then return end
  local age = math.max(0, bucket.now - taken) * 1000
  local starts = math.max(0, start - (bucket.given - given) % WRAP) - age
  local ends = starts + math.min(WRAP, units * interval)
  local back = math.min((units - used) * interval, ends - math.max(starts, 0), bucket.offset)
  if back <= 0 then return end
  bucket.offset = bucket.offset - back
  bucket.given = (bucket.given + back) % WRAP
  bucket.changed = true
end

local function lease(bucket, most, interval, wanted, share, holder, lease_us)
  local own = bucket.leases[holder] and bucket.leases[holder].held or 0
  local left = most * interval - bucket.offset - bucket.held + own
  local held = math.min(wanted, math.floor(left * share / interval)) * interval
  hold(bucket, holder, math.max(own, held), bucket.now + lease_us)
end

local function decide(keys, args)
  local request = args[1]
  local clock_us, forced, share, holder, lease_us, corrections, needs, position = struct.unpack(HEAD, request)
  if clock_us < 0 then
    local time = redis.call('TIME')
    clock_us = time[1] * 1000000 + time[2]
  end
  local buckets = {}
  for index, key in ipairs(keys) do buckets[index] = open(key, clock_us) end

  local wanted = {}
  for need = 1, needs do
    local index, most, interval, units, want, handed_out, keep
    index, most, interval, units, want, handed_out, keep, position = struct.unpack(NEED, request, position)
    wanted[need] = {buckets[index], most, interval, units, want}
    account(buckets[index], holder, handed_out, keep)
  end
  for _ = 1, corrections do
    local index, interval, units, used, taken, start, given
    index, interval, units, used, taken, start, given, position = struct.unpack(CORRECTION, request, position)
    settle(buckets[index], interval, units, used, taken, start, given)
  end

  local fits = 1
  for need = 1, needs do
    local bucket, most, interval, units = unpack(wanted[need])
    if units > most or bucket.offset + bucket.held > (most - units) * interval then fits = 0 end
  end
  local reply = {struct.pack('<d', fits)}
  for need = 1, needs do
    local bucket, most, interval, units, want = unpack(wanted[need])
    local offset, given = bucket.offset, bucket.given
    if fits == 1 or forced == 1 then
      if units > 0 then take(bucket, units * interval) end
      if want > 0 then lease(bucket, most, interval, want, share, holder, lease_us) end
    end
    local own = bucket.leases[holder] and bucket.leases[holder].held or 0
    reply[need + 1] = struct.pack('<ddddd', bucket.now, offset, given, bucket.held, math.floor(own / interval))
  end
  for _, bucket in ipairs(buckets) do
    if bucket.changed then save(bucket) end
  end
  return table.concat(reply)
end

redis.register_function('modelplane_decide_VERSION', decide)
