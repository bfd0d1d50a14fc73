from __future__ import annotations

from scaling.loss_band import BandPoint, LossBand
from scaling.record import Interval
from trainer.band_watch import BandWatch


def between(low: float, middle: float, high: float) -> Interval:
    return Interval(estimate=middle, low=low, high=high)


BAND = LossBand(
    level=0.9,
    final=between(2.9, 3.0, 3.1),
    points=(
        BandPoint(tokens=100, loss=between(3.8, 4.0, 4.2), way_sd=0.01),
        BandPoint(tokens=500, loss=between(3.3, 3.4, 3.5), way_sd=0.005),
        BandPoint(tokens=1000, loss=between(2.9, 3.0, 3.1), way_sd=0.0),
    ),
)


def told(*looks: tuple[int, float]) -> tuple[BandWatch, list[str]]:
    said: list[str] = []
    watch = BandWatch(BAND, said.append)
    for tokens, loss in looks:
        watch.metrics(tokens, tokens, 0.0, {"train_loss": 9.0})
        watch.metrics(tokens, tokens, 0.0, {"held_out_loss": loss})
    return watch, said


def test_a_run_in_its_band_says_nothing_and_renews_its_forecast() -> None:
    watch, said = told((50, 9.0), (100, 4.1), (500, 3.44), (1000, 3.05))
    assert said == [] and watch.alarms == 0
    assert watch.renewed is not None and watch.renewed.low is not None and watch.renewed.high is not None
    assert 3.0 < watch.renewed.estimate < 3.1
    assert watch.renewed.high - watch.renewed.low < 0.2


def test_leaving_the_band_is_said_once_a_side_with_causes_and_so_is_coming_back() -> None:
    watch, said = told((100, 4.3), (200, 4.4), (500, 3.4), (700, 2.0))
    assert watch.alarms == 2
    assert len(said) == 3
    assert (
        said[0].startswith("ALARM: after 100 tokens the held-out loss is 4.3000, above") and "learning rate" in said[0]
    )
    assert "back in the forecast's band" in said[1]
    assert "below" in said[2] and "held-out text among the training text" in said[2]
