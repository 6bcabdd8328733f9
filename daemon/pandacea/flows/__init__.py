"""The journeys: plain async functions over the Protocols of `ports`. Each resumes from its row; no flow calls another."""
