"""The states of conversations and of messages to webhooks; those of a job are in `job_states.py`."""
