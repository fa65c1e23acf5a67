"""Static: masks that never change, which is how the result of pruning at initialization is trained."""

from typing import Any

from mge_gpu.dynamic.rule import Rule


class Static(Rule):
    """No update ever; ``total_steps`` is not needed."""

    def __init__(self, total_steps: int | None = None) -> None:
        super().__init__("static", 1 if total_steps is None else total_steps, 1)

    def due(self, step: int) -> bool:
        """Never."""
        return False

    def settings(self) -> dict[str, Any]:
        """None that matter."""
        return {}
