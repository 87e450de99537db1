"""Log lines: time, level, place, message; to standard error."""

import logging


def set_up(level: str) -> None:
    """Send our own log lines from `level` up, and other libraries' warnings, to standard error."""
    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", level="WARNING")
    for name in ("pipeline", "stages", "api"):
        logging.getLogger(name).setLevel(level.upper())
    # Clients that send nonsense are told so in their answer; a traceback for each would only fill the log.
    logging.getLogger("aiohttp.server").setLevel("CRITICAL")
