"""Every loss is told in a sentence with seconds."""

from __future__ import annotations

import pytest

from backend.domain.losses import Loss, LossKind


@pytest.mark.parametrize("kind", LossKind)
def test_every_kind_of_loss_says_how_many_seconds(kind: LossKind) -> None:
    loss = Loss(kind, 12.34, 5.67, count=3, size_bytes=999, what="1 (aac)")
    assert "5.7 s" in loss.sentence and loss.sentence.endswith(".")


def test_an_unknown_length_is_called_so() -> None:
    assert "an unknown length" in Loss(LossKind.BROKEN_OFF, 3.0, size_bytes=10).sentence


def test_one_piece_is_not_told_in_the_plural() -> None:
    assert "1 damaged piece of" in Loss(LossKind.DAMAGED, 3.0, 1.0).sentence
