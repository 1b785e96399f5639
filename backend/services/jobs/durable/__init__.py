"""The durable engine (DBOS Transact): workflows with checkpoints, queues, and the database they are kept in."""
