"""`python -m agentws`."""

from agentws.cli import main

if __name__ == "__main__":
    main()
