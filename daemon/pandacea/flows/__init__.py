"""The flows: plain async functions over Protocols. Each resumes from its rows after a crash; no flow calls another."""
