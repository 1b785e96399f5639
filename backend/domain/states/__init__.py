"""The states of jobs, conversations and messages to webhooks, and the transitions between those of a job."""
