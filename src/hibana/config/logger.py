"""The log (api.md §3.12)."""

from typing import Annotated, Final

from hibana.serde.shapes import Converted, Path, Strict

_LEVELS: Final = ("off", "trace", "debug", "info", "warn", "warning", "error")


def level_filter(text: str) -> str:
    """Check the name of a level, in any case, and give it in lower case."""
    level = text.lower()
    if level not in _LEVELS:
        raise ValueError("Invalid LevelFilter")
    return level


class LoggerConfig(Strict):
    """What is None keeps its value, except the level, which falls back to Info."""

    log_path: Path | None = None
    level: Annotated[str, Converted(level_filter)] | None = None
    show_level: bool | None = None
    show_log_origin: bool | None = None
    module: str | None = None
