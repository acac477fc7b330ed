-- Load for wrk (benchmarks/serving_load.py): requests for random users, at full speed or at a constant rate, and figures as JSON.
-- Arguments: a path in which USER stands for the id, the number of users, requests a second (0: as many as are answered).
local path, users, rate, planned_ms

local ffi = require("ffi")
ffi.cdef("typedef struct { long seconds, nanoseconds; } timespec_t; int clock_gettime(int, timespec_t *);")
local CLOCK_MONOTONIC = 1
local time = ffi.new("timespec_t")

local function now_ms()
  ffi.C.clock_gettime(CLOCK_MONOTONIC, time)
  return tonumber(time.seconds) * 1000 + tonumber(time.nanoseconds) / 1e6
end

function setup(thread)
  thread:set("seed", math.random(1, 1000000))
end

function init(args)
  path, users, rate = args[1], tonumber(args[2]), tonumber(args[3])
  math.randomseed(seed)
  planned_ms = now_ms()
  if rate == 0 then
    delay = nil
  end
end

-- One plan for all connections: whichever is free sends at the next moment of it. wrk's timers have whole milliseconds.
function delay()
  local now = now_ms()
  planned_ms = math.max(planned_ms + 1000 / rate, now)
  return math.floor(planned_ms - now)
end

function request()
  return wrk.format("GET", (path:gsub("USER", tostring(math.random(users)))))
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'figures {"answers": %d, "seconds": %.6f, "mean_ms": %.6f, "p50_ms": %.6f, "p99_ms": %.6f, "max_ms": %.6f, "failed": %d}\n',
    summary.requests, summary.duration / 1e6, latency.mean / 1e3, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3, errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
