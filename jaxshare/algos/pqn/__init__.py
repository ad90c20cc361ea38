"""PQN: Q(lambda) on pieces of streams, without a replay or target networks."""
