"""`python -m agentws`."""

from agentws.cli.main import main

if __name__ == "__main__":
    main()
