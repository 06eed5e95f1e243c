"""What services do with `self.kvdb.conn`, through the real redis-py."""
import sys
import threading
import time

import redis

port, password = int(sys.argv[1]), sys.argv[2]


def connect(**more):
    return redis.Redis(port=port, password=password, decode_responses=True, **more)


conn = connect()
assert conn.set("x", 1) and conn.incr("x") == 2
assert conn.get("nothing") is None
try:
    conn.lpush("x", 1)
    raise SystemExit("no error for the wrong type")
except redis.ResponseError as err:
    assert str(err) == "WRONGTYPE Operation against a key holding the wrong kind of value", err
try:
    redis.Redis(port=port).get("x")
    raise SystemExit("no password was asked for")
except redis.AuthenticationError:
    pass

with conn.pipeline() as pipe:
    for number in range(1000):
        pipe.set(f"k{number}", number)
    assert pipe.execute() == [True] * 1000
assert len(set(conn.scan_iter("k*"))) == 1000

# A transaction that is tried again because another client interferes.
conn.set("balance", 10)
tries = []


def add_one(pipe):
    now = int(pipe.get("balance"))
    if not tries:
        connect().incr("balance")
    tries.append(now)
    pipe.multi()
    pipe.set("balance", now + 1)


conn.transaction(add_one, "balance")
assert tries == [10, 11] and conn.get("balance") == "12", (tries, conn.get("balance"))

# Locks are scripts.
lock = conn.lock("lock", timeout=5)
assert lock.acquire(blocking=False)
assert not connect().lock("lock", timeout=5).acquire(blocking=False)
assert lock.extend(10) and conn.pttl("lock") > 5000
assert lock.reacquire()
lock.release()
assert not conn.exists("lock")
order = []


def locked(number):
    with connect().lock("shared", timeout=10, sleep=0.01):
        order.append(("in", number))
        time.sleep(0.01)
        order.append(("out", number))


threads = [threading.Thread(target=locked, args=(number,)) for number in range(5)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert all(order[i][0] == "in" and order[i + 1] == ("out", order[i][1]) for i in range(0, 10, 2))

# Waiting.
threading.Timer(0.2, lambda: connect().rpush("queue", "item")).start()
assert conn.blpop("queue", timeout=5) == ("queue", "item")
assert conn.blpop("queue", timeout=1) is None
threading.Timer(0.2, lambda: connect().zadd("scores", {"m": 1.5})).start()
assert conn.bzpopmin("scores", timeout=5) == ("scores", "m", 1.5)

# Channels.
listener = conn.pubsub()
listener.subscribe("news")
listener.psubscribe("ne*")
assert listener.get_message(timeout=5)["type"] == "subscribe"
assert listener.get_message(timeout=5)["type"] == "psubscribe"
assert conn.publish("news", "hello") == 2
assert listener.get_message(timeout=5)["data"] == "hello"
assert listener.get_message(timeout=5)["pattern"] == "ne*"
listener.close()

# Types.
conn.hset("hash", mapping={"a": 1, "b": "two"})
assert conn.hgetall("hash") == {"a": "1", "b": "two"}
conn.zadd("z", {"a": 1, "b": 2.5, "c": float("inf")})
assert conn.zrange("z", 0, -1, withscores=True) == [("a", 1.0), ("b", 2.5), ("c", float("inf"))]
assert conn.zrangebyscore("z", "(1", 5) == ["b"]
assert conn.smembers("none") == set()
conn.sadd("s", 1, 2, 3)
assert conn.sinter("s", "s") == {"1", "2", "3"}
assert conn.expire("hash", 100) and 0 < conn.ttl("hash") <= 100
multiply = conn.register_script("return redis.call('get', KEYS[1]) * ARGV[1]")
assert multiply(keys=["x"], args=[21]) == 42
assert conn.info()["redis_version"] == "7.0.15"
assert conn.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
assert any(client["cmd"] == "client|list" or client["cmd"] == "client" for client in conn.client_list())
assert connect(db=3).dbsize() == 0
print("all well")
