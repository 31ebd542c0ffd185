"""The shipped table of usage tiers."""

import msgspec
import pytest

from services.ratelimit import tiers
from services.ratelimit.limits import AUDIO, BATCH, DIMENSIONS, IPM, RPD, RPM, TPM


def test_the_default_family() -> None:
    table = tiers.load()
    assert table.limits("any-model", 0) == {RPM: 3, RPD: 200, TPM: 40_000}
    assert table.limits("any-model", 1) == {RPM: 500, RPD: 10_000, TPM: 200_000, BATCH: 2_000_000}
    assert table.limits("any-model", 5) == {RPM: 30_000, TPM: 150_000_000, BATCH: 15_000_000_000}


@pytest.mark.parametrize(
    ("model", "dimension"),
    [("dall-e-3", IPM), ("gpt-image-1", IPM), ("stable-diffusion-xl", IPM), ("whisper-1", AUDIO), ("tts-1", AUDIO)],
)
def test_a_family_is_known_by_its_models_names(model: str, dimension: int) -> None:
    assert all(dimension in tiers.load().limits(model, tier) for tier in tiers.TIERS)
    assert dimension not in tiers.load().limits("smollm2-135m-instruct", 3)


@pytest.mark.parametrize(("tier", "same_as"), [(-1, 0), (6, 5), (100, 5)])
def test_a_tier_out_of_range_is_the_nearest(tier: int, same_as: int) -> None:
    assert tiers.load().limits("m", tier) == tiers.load().limits("m", same_as)


def test_a_higher_tier_never_has_less() -> None:
    table = tiers.load()
    for family in table.families:
        assert all({*row} <= {*DIMENSIONS} for row in family.tiers)
        for lower, higher in zip(family.tiers, family.tiers[1:], strict=False):
            # What only a lower tier names is not limited in the higher.
            assert all(higher[word] >= lower[word] for word in {*lower} & {*higher})


def test_a_table_of_too_few_tiers_is_refused() -> None:
    text = '[[families]]\nname = "m"\nmodels = ["*"]\ntiers = [{ rpm = 1 }]'
    with pytest.raises(msgspec.ValidationError):
        msgspec.toml.decode(text, type=tiers.TierTable)
