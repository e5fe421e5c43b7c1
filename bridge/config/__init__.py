"""Configuration: pydantic models over YAML and the environment; every default with its unit.

`PARLEY__SECTION__KEY` in the environment overrides the file (`PARLEY__DATABASE__URL`). Unknown keys and bad
values refuse to start, naming the key and the fix.
Not here: defaults that are nobody's choice (constants beside the code that uses them); what each key means
to an operator (config.example.yaml, docs/running.md: a test keeps them complete).
"""

from bridge.config.loading import Misconfigured, load_config
from bridge.config.models import (
    ApiKey,
    ClusterSection,
    ConferenceSection,
    Config,
    Database,
    HttpSection,
    Listen,
    LivekitSection,
    LogSection,
    MatrixSection,
    MediaSection,
    Section,
    SfuSection,
    Tls,
    TurnSection,
    WebSection,
    XmppSection,
)
from bridge.config.rules import is_loopback, problems

__all__ = [
    "ApiKey",
    "ClusterSection",
    "ConferenceSection",
    "Config",
    "Database",
    "HttpSection",
    "Listen",
    "LivekitSection",
    "LogSection",
    "MatrixSection",
    "MediaSection",
    "Misconfigured",
    "Section",
    "SfuSection",
    "Tls",
    "TurnSection",
    "WebSection",
    "XmppSection",
    "is_loopback",
    "load_config",
    "problems",
]
