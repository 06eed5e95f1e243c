-- What scripts see.  Called once per interpreter with the functions of the host; gives the function
-- that runs a script.
local host = ...

local error, getmetatable, ipairs, next, pairs, pcall, rawequal, rawget, rawset, select, setfenv,
  setmetatable, tonumber, tostring, type, unpack, xpcall, assert =
  error, getmetatable, ipairs, next, pairs, pcall, rawequal, rawget, rawset, select, setfenv,
  setmetatable, tonumber, tostring, type, unpack, xpcall, assert
local randomseed = math.randomseed

local guarded = setmetatable({}, { __mode = "k" })

local function refuse()
  error("Attempt to modify a readonly table", 2)
end

-- A table that shows another and cannot be changed.
local function guard(inner)
  local outer = setmetatable({}, { __index = inner, __newindex = refuse, __metatable = false })
  guarded[outer] = true
  return outer
end

local function copy(from, without)
  local to = {}
  for name, value in pairs(from) do
    if not without[name] then to[name] = value end
  end
  return to
end

local redis = {
  LOG_DEBUG = 0, LOG_VERBOSE = 1, LOG_NOTICE = 2, LOG_WARNING = 3,
  REPL_ALL = 3, REPL_AOF = 1, REPL_SLAVE = 2, REPL_REPLICA = 2, REPL_NONE = 0,
  REDIS_VERSION = "7.0.15", REDIS_VERSION_NUM = 0x07000f,
}

function redis.sha1hex(...)
  if select("#", ...) ~= 1 then
    error({ err = "ERR wrong number of arguments" }, 0)
  end
  return host.sha1hex(tostring((...)))
end

function redis.error_reply(...)
  local text = ...
  if select("#", ...) ~= 1 or type(text) ~= "string" then
    return { err = "ERR wrong number or type of arguments" }
  end
  if text:sub(1, 1) == "-" then text = text:sub(2) end
  if not text:find(" ", 1, true) then text = "ERR " .. text end
  return { err = text }
end

function redis.status_reply(...)
  local text = ...
  if select("#", ...) ~= 1 or type(text) ~= "string" then
    return { err = "ERR wrong number or type of arguments" }
  end
  return { ok = text }
end

function redis.log(...)
  local level = ...
  if select("#", ...) < 2 then error({ err = "ERR redis.log() requires two arguments or more." }, 0) end
  if type(level) ~= "number" then
    error({ err = "ERR First argument must be a number (log level)." }, 0)
  end
  if level < 0 or level > 3 then error({ err = "ERR Invalid log level." }, 0) end
  local words = { select(2, ...) }
  for index, word in ipairs(words) do words[index] = tostring(word) end
  host.log(level, table.concat(words, " "))
end

function redis.setresp(version)
  if version ~= 2 and version ~= 3 then error({ err = "ERR RESP version must be 2 or 3." }, 0) end
end

function redis.replicate_commands() return true end
function redis.set_repl() end
function redis.breakpoint() return false end
function redis.debug() end

local libraries = {
  string = guard(copy(string, { dump = true })),
  table = guard(copy(table, {})),
  math = guard(copy(math, {})),
  coroutine = guard(copy(coroutine, {})),
  cjson = guard({
    encode = host.json_encode,
    decode = host.json_decode,
    null = host.json_decode("null"),
  }),
}
getmetatable("").__index = libraries.string
getmetatable("").__metatable = false

local function set_raw(target, name, value)
  if guarded[target] then error("Attempt to modify a readonly table", 2) end
  return rawset(target, name, value)
end

local base = {
  _VERSION = "Lua 5.1", assert = assert, error = error, getmetatable = getmetatable,
  ipairs = ipairs, next = next, pairs = pairs, pcall = pcall, rawequal = rawequal,
  rawget = rawget, rawset = set_raw, select = select, setmetatable = setmetatable,
  tonumber = tonumber, tostring = tostring, type = type, unpack = unpack, xpcall = xpcall,
}
for name, library in pairs(libraries) do base[name] = library end

return function(script, call, keys, argv)
  local own = copy(redis, {})
  -- The line of an error is found two levels above the host's function: both forms call it alike.
  function own.call(...)
    local reply = call(...)
    if type(reply) == "table" and reply.err then error(reply, 0) end
    return reply
  end
  function own.pcall(...)
    local reply = call(...)
    return reply
  end
  local globals = setmetatable({ KEYS = keys, ARGV = argv, redis = guard(own) }, { __index = base })
  local environment = setmetatable({}, {
    __metatable = false,
    __newindex = refuse,
    __index = function(_, name)
      local value = globals[name]
      if value == nil then
        error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
      end
      return value
    end,
  })
  globals._G = environment
  guarded[environment] = true
  randomseed(0)
  setfenv(script, environment)
  return pcall(script)
end
