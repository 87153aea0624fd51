"""The LLM edge and the wiring: teachers, the nodes of a round, the graph, the command line."""

import os

# langgraph reads this when it is imported: graph state may hold plain values only.
os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")
