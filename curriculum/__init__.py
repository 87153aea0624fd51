"""The core: records, config, data, grading, profile, plan, gate, report. No model, no LLM client, no server."""
