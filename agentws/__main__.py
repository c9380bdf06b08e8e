"""The command line, from its beginning: `agentws`, or `python -m agentws`."""

import signal


def main() -> None:
    """Run the command line; the process ends with its exit code.

    Until a command takes Ctrl-C for itself, it ends the process as if there was no Python.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored (nohup)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from agentws.cli.main import main as commands

    commands(prog_name="agentws")


if __name__ == "__main__":
    main()
