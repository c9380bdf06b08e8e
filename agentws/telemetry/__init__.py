"""What the daemon tells of its work: spans, metrics, log lines, and where they go.

In come an operation's beginning and end, counts, and lines; out they go to stdout and to whatever
is configured, or nowhere. It holds nobody up, and knows neither invocations nor sockets.

- **Telemetry is never an `if`.** One object is chosen at the start, silent or not, and told of each
  operation's beginning and end. The silent one only makes the caller's trace and the baggage
  current.
- **A trace is attached and never detached.** The invocation's task is its own context; elsewhere
  what was current before is attached again. Detaching fails where a coroutine is closed from
  another context, and says so in the log.
- **Spans are ours until somebody touches them** (`lean_tracing`), which costs a tenth of the
  SDK's own. What is touched (failed, annotated by the agent) or made by the agent takes the SDK's
  way.
- **Lean spans are encoded by filling in what the SDK's encoder made of the first of their kind**
  (`lean_export`), in a tenth of what that takes, and follow in the body of the request that its
  exporter makes over HTTP, by the session that it is given. Over gRPC there is no such way in by
  public names: there, and where the exporter is to see each span, its encoder takes them all.
- **Each span is decided once**: the sampler and the source of ids are one object
  (`sampling.Decisions`), which gives the SDK's tracer what was settled before. Another trace id
  would be another decision.
- **A queue of our own** in place of the SDK's batch processor, which logs every record it drops,
  counts none, and cannot be told how long to flush.
- **Application Insights by its exporter, not by `configure_azure_monitor`**, which would bring live
  metrics, patch libraries and keep five traces a second. Its statistics, remote configuration and
  files for retries are off: what waits, waits in the bounded queue.
- **Who is scraped, keeps a thread for it** (`prometheus`): the agent's callbacks, which may take
  their time, are called there. Its registry is its own, so that nothing else in the process is
  told. A daemon that is only scraped makes no spans, and imports none of the exporters.
- **Codes that others make up are few** (`metrics`): an agent may raise errors with any code, a
  client close with two thousand, and each would be a time series for ever. After fifty, it is
  `other`.
- **What exporters log is kept apart by what the thread is doing** (`as_exporter`), so that it is
  neither exported in its turn nor printed more than once a minute, nor with the key in it.
- **A log line is formatted by who logs and written by a thread** (`log_output`): what it tells of
  the invocation is known only there, and a pipe that nobody reads would stop the event loop. The
  queue is the one of the standard library that a signal handler may use, too. Many lines are one
  write, so a logged request takes no longer than it did with a write of its own.
- **Numbers of the moment are asked for** (active invocations and sockets), when metrics are
  collected, and cost the hot path nothing.
"""
