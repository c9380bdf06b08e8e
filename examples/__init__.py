"""Agents to start from: `agentws serve --handler examples.streaming:agent` and so on."""
