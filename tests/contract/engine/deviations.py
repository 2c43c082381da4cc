"""What an engine is known not to do, test by test, with the reason; such a test must fail there."""

from typing import Final

DEVIATIONS: Final[dict[str, dict[str, str]]] = {"soft": {}}
