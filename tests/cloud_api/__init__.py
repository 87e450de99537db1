"""A strict stand-in for the WhatsApp Cloud API, in this process or as one of its own.

It holds callers to what Meta documents, notes every call that breaks it (`violations`), fails as it is told to,
and tells a webhook what became of each message.
"""

from tests.cloud_api.config import NUMBER, TOKEN, Config, Fault, Statuses, Template
from tests.cloud_api.process import running
from tests.cloud_api.report import Accepted, Report, fetch_report
from tests.cloud_api.server import CloudApi

__all__ = [
    "NUMBER",
    "TOKEN",
    "Accepted",
    "CloudApi",
    "Config",
    "Fault",
    "Report",
    "Statuses",
    "Template",
    "fetch_report",
    "running",
]
