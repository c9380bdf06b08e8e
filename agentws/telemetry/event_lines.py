"""Log lines of what happens all the time: too many to look up the line of code that writes each."""

import logging
from collections.abc import Mapping


def log_event(
    logger: logging.Logger, level: int, message: str, *args: object, fields: Mapping[str, object]
) -> None:
    """Log what `logger.log` would, with `fields` beside it, but no file and line of code.

    Those are found by a walk up the stack, which takes a sixth of what a line takes in all, and say
    nothing: the logger's name tells as much. No field may have the name of what records have
    anyhow; it is not checked, as names are not made up here.
    """
    if logger.isEnabledFor(level):
        make = logging.getLogRecordFactory()
        record = make(logger.name, level, "", 0, message, args, None)
        record.__dict__.update(fields)
        logger.handle(record)
