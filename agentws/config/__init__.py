"""What can be configured, and what is.

In come a file, the environment and flags; out goes one frozen tree of settings, whose sections are
handed down, or a sentence on what is wrong. It sets nothing up, and knows neither the agent nor
anything that is configured by it.
"""
