"""Held-out loss: exact where it can be computed by hand, with an interval that covers."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from scaling.errors import UserError
from scaling.run_spec import RunSpec
from trainer.data.shards import Corpus
from trainer.evaluate import held_out
from trainer.evaluate.held_out import HeldOutSet, clustered_standard_error, domain_loss
from trainer.models.llama import Llama


@pytest.fixture
def model(tiny_spec: Callable[..., RunSpec]) -> Llama:
    model = Llama(tiny_spec().shape)
    model.initialise(0)
    return model


def test_equals_the_loss_computed_window_by_window(tiny_corpus: Corpus, model: Llama) -> None:
    loss = HeldOutSet(tiny_corpus, 1003, 16).loss(model)
    tokens = torch.from_numpy(tiny_corpus.tokens("held_out").astype(np.int64))
    nats, text_nats, text_bytes = 0.0, 0.0, 0
    last = (len(tokens) - 1) // 16 - 1
    for window in np.linspace(0, last, 62).round().astype(int).tolist():
        x_T, y_T = tokens[window * 16 : window * 16 + 16], tokens[window * 16 + 1 : window * 16 + 17]
        with torch.no_grad():
            nats_T = F.cross_entropy(model(x_T[None])[0], y_T, reduction="none").double()
        nats += nats_T.sum().item()
        text_nats += nats_T[y_T != 0].sum().item()
        text_bytes += int(tiny_corpus.token_bytes[y_T.numpy()].sum())
    assert loss.tokens == 62 * 16
    assert loss.loss_nats == pytest.approx(nats / loss.tokens, rel=1e-5)
    assert loss.bits_per_byte == pytest.approx(text_nats / math.log(2) / text_bytes, rel=1e-5)


def test_few_tokens_still_come_from_everywhere_in_the_split(tiny_corpus: Corpus) -> None:
    windows = HeldOutSet(tiny_corpus, 1003, 16)
    works = set(tiny_corpus.held_out_works.tolist())
    assert set(windows.work_WT.ravel().tolist()) == works
    first_piece, last_piece = windows.work_WT[0, 0], windows.work_WT[-1, -1]
    assert (first_piece, last_piece) == (tiny_corpus.held_out_works[0], tiny_corpus.held_out_works[-1])


def test_a_model_that_knows_nothing_needs_log_v(tiny_corpus: Corpus, model: Llama) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    loss = HeldOutSet(tiny_corpus, 2000, 16).loss(model)
    assert loss.loss_nats == pytest.approx(math.log(64), rel=1e-6)
    assert loss.loss_sem == pytest.approx(0, abs=1e-6)


def test_does_not_depend_on_how_the_windows_are_batched(
    tiny_corpus: Corpus, model: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = HeldOutSet(tiny_corpus, 2000, 16)
    expected = whole.token_nats(model)
    subset = whole.subset(10)
    np.testing.assert_allclose(whole.token_nats(model, subset), expected[subset], rtol=1e-5)
    monkeypatch.setattr(held_out, "BATCH_TOKENS_CPU", 48)
    np.testing.assert_allclose(whole.token_nats(model), expected, rtol=1e-5)


def test_the_clustered_error_covers_where_the_plain_one_does_not() -> None:
    generator = np.random.default_rng(0)
    clustered, plain, trials = 0, 0, 500
    for _ in range(trials):
        sizes = generator.integers(20, 80, size=40)
        cluster = np.repeat(np.arange(40), sizes)
        values = generator.normal(0, 0.5, 40)[cluster] + generator.normal(0, 1, cluster.size)
        clustered += abs(values.mean()) < 1.645 * clustered_standard_error(values, cluster)
        plain += abs(values.mean()) < 1.645 * values.std(ddof=1) / math.sqrt(values.size)
    assert 0.85 < clustered / trials < 0.94
    assert plain / trials < 0.6


def with_domains(corpus: Corpus, folder: Path, domain_P: list[int], names: tuple[str, ...]) -> Corpus:
    """A copy of the corpus whose held-out pieces are of the given domains."""
    shutil.copytree(corpus.directory, folder)
    np.save(folder / "held_out.domains.npy", np.array(domain_P))
    manifest = corpus.manifest.model_copy(update={"held_out_domains": names})
    (folder / "manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")
    return Corpus(folder)


def test_the_loss_of_a_domain_is_that_of_its_tokens_alone(tiny_corpus: Corpus, model: Llama, tmp_path: Path) -> None:
    # 24 pieces of 12 works: one of no domain, one work of "single", the rest of two others in turn.
    domain_P = [-1, -1, 2, 2, *(work % 2 for work in range(2, 12) for _ in range(2))]
    corpus = with_domains(tiny_corpus, tmp_path / "c", domain_P, ("even", "odd", "single", "absent"))
    windows = HeldOutSet(corpus, 2000, 16)
    whole, plain = windows.loss(model), HeldOutSet(tiny_corpus, 2000, 16).loss(model)
    assert plain.domains == {}
    assert whole.model_dump(exclude={"domains"}) == plain.model_dump(exclude={"domains"}), "the overall loss moved"
    assert list(whole.domains) == ["even", "odd", "single"]
    nats, work, targets = (a.ravel() for a in (windows.token_nats(model).astype(float), windows.work_WT, windows.y_WT))
    for name, works in (("even", range(2, 12, 2)), ("odd", range(3, 12, 2)), ("single", [1])):
        found, mine = whole.domains[name], np.isin(work, works)
        text = mine & (targets != 0)
        assert (found.tokens, found.works) == (mine.sum(), len(works))
        assert found.loss_nats == pytest.approx(nats[mine].mean())
        bits = nats[text].sum() / math.log(2) / corpus.token_bytes[targets[text]].sum()
        assert found.bits_per_byte == pytest.approx(bits)
        assert found.loss_sem == (None if name == "single" else clustered_standard_error(nats[mine], work[mine]))


def test_bits_per_byte_of_all_windows_is_that_of_the_loss(tiny_corpus: Corpus, model: Llama) -> None:
    windows = HeldOutSet(tiny_corpus, 2000, 16)
    everything = np.arange(len(windows))
    bits = windows.bits_per_byte(windows.token_nats(model, everything), everything)
    assert bits == pytest.approx(windows.loss(model).bits_per_byte, rel=1e-6)
    half = windows.subset(len(windows) // 2)
    assert windows.bits_per_byte(windows.token_nats(model, half), half) != pytest.approx(bits, rel=1e-6)


@pytest.mark.parametrize("works", [5, 40])
def test_the_error_of_a_domain_holds_its_level(works: int) -> None:
    """Works drawn from a domain, each with a loss and a length of its own; intervals by Student's t of its works."""
    generator, held, trials = np.random.default_rng(2), 0, 1500
    for _ in range(trials):
        work = np.repeat(np.arange(works), generator.integers(20, 60, size=works))
        nats = 3.0 + generator.normal(0, 0.3, works)[work] + generator.normal(0, 1, work.size)
        loss = domain_loss(nats, work, np.ones_like(work), np.ones(work.size, dtype=bool))
        assert loss.loss_sem is not None
        held += abs(loss.loss_nats - 3.0) < stats.t.ppf(0.95, loss.works - 1) * loss.loss_sem
    assert 0.87 < held / trials < 0.93


def test_singletons_give_the_textbook_standard_error() -> None:
    values = np.random.default_rng(1).normal(size=50)
    assert clustered_standard_error(values, np.arange(50)) == pytest.approx(values.std(ddof=1) / math.sqrt(50))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [(10**9, "exceeds the held-out split"), (15, "fills no window"), (16, "a single held-out work")],
)
def test_a_set_that_cannot_be_measured_is_refused(tiny_corpus: Corpus, tokens: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        HeldOutSet(tiny_corpus, tokens, 16)
