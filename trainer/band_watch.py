"""Holds a run's held-out losses against the band of its forecast while it goes, and says when one leaves it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from scaling.loss_band import LossBand
from scaling.quantity import format_count
from scaling.record import Interval
from trainer.tracker import NullTracker

__all__ = ["BandWatch"]

_ABOVE = (
    "Look for: a learning rate too high for this size (gradient norms that rise, spikes), text unlike the sweep's or "
    "badly shuffled, a precision in which something overflows. If none of these is found, the law bends, and the run "
    "will end above its forecast: stop before the money is spent, or take the renewed forecast"
)
_BELOW = (
    "Look for: held-out text among the training text, another corpus or tokenizer than the sweep's, another held-out "
    "set. If none of these is found, the run is better than its forecast"
)


class BandWatch(NullTracker):
    """A tracker. ``say`` is told in one line when a loss leaves the band and when it is back; ``renewed`` is the
    forecast of the run's end in the light of its own curve, by its last look before that end."""

    def __init__(self, band: LossBand, say: Callable[[str], None]) -> None:
        self._band, self._say = band, say
        self._side = ""
        self.renewed: Interval | None = None
        self.alarms = 0

    def metrics(self, step: int, tokens: int, flops: float, values: Mapping[str, float]) -> None:
        loss = values.get("held_out_loss")
        expected = None if loss is None else self._band.at(tokens)
        if loss is None or expected is None:
            return
        if tokens < self._band.points[-1].tokens:
            self.renewed = self._band.renewed(tokens, loss)
        low, high = expected.loss.low or loss, expected.loss.high or loss
        side = "above" if loss > high else "below" if loss < low else ""
        where = f"after {format_count(tokens)} tokens the held-out loss is {loss:.4f}"
        if side and side != self._side:
            self.alarms += 1
            self._say(
                f"ALARM: {where}, {side} the forecast's band [{low:.4f}, {high:.4f}]. "
                f"{_ABOVE if side == 'above' else _BELOW}. {self._forecast()}"
            )
        elif self._side and not side:
            self._say(f"{where}, back in the forecast's band [{low:.4f}, {high:.4f}]. {self._forecast()}")
        self._side = side

    def _forecast(self) -> str:
        if self.renewed is None:
            return ""
        registered, renewed = self._band.final, self.renewed
        return (
            f"Forecast of the end: {renewed.estimate:.4f} [{renewed.low:.4f}, {renewed.high:.4f}] by its own curve, "
            f"{registered.estimate:.4f} [{registered.low:.4f}, {registered.high:.4f}] before it"
        )
