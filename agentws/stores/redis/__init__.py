"""The store that several replicas share: logs in Redis, written by the replica that runs them."""

from agentws.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
