"""`agentws dev`: a daemon that is there again, changed, a moment after the agent is saved.

In come a target and a port; out goes an exit code. It is a wing of its own because it runs another
process than the daemon, which knows of it what it is handed at the start (`Supervision`) and
nothing else; and because what it needs (`watchfiles`, `dotenv`) nobody else does.

- **The process is another one each time**, never a module that is loaded again: what an old version
  has left behind (threads, patches, half of an import) is gone with it.
- **The port is bound once, by the supervisor**, and handed to each process: whoever connects in
  between waits for the next one, and is not refused. The old one stops accepting first of all.
- **The next process is started before it is needed**, and waits with everything imported but the
  agent. So a save is served after the time that the agent's own imports take.
- **An agent that cannot be imported is stood in for**, by an agent that says so to whoever invokes.
- **A process ends with its supervisor**, however that ended: the channel between them is closed
  then. The keyboard's signals are the supervisor's alone; but standard input is the agent's, so
  that a debugger can be used.
- **What Python has compiled of a changed file is removed**: it is known by the second and the size,
  and two saves within a second would be taken for one.
- **The supervisor's own environment never changes**, so that each process reads `.env` anew.
"""
