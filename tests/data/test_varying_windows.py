"""Windows of random length: their lengths, and that a pass reads each step of the text once."""

import numpy as np
import pytest

from lstm_optax.data import TextError, VaryingWindows

ROWS, STEPS = 3, 331  # steps of a row, not a multiple of any length
CODES = np.arange(ROWS * STEPS + 2, dtype=np.int32)  # each code is its own index


def windows(window=20, seed=0) -> VaryingWindows:
    return VaryingWindows.of(CODES, ROWS, window, seed=seed)


def test_each_step_is_read_once_per_pass():
    varying, passes = windows(), 4
    read, targets, resets = [], [], []
    for p in range(100):
        batch = varying(p)
        (length,) = set(batch.lengths)
        assert batch.inputs.shape == (30, ROWS) == batch.targets.shape == batch.resets.shape
        assert (batch.inputs[length:] == 0).all() and (batch.targets[length:] == -1).all()
        assert not batch.resets[length:].any() and varying.start(p) == sum(map(len, read))
        read.append(batch.inputs[:length])
        targets.append(batch.targets[:length])
        resets.append(batch.resets[:length])
    text = CODES[: ROWS * STEPS].reshape(ROWS, STEPS).T
    steps = np.concatenate(read)
    assert len(steps) > passes * STEPS
    for number in range(passes):
        one = slice(number * STEPS, (number + 1) * STEPS)
        np.testing.assert_array_equal(steps[one], text)
        np.testing.assert_array_equal(np.concatenate(targets)[one], text + 1)
        at = np.concatenate(resets)[one]
        assert at[0].all() and not at[1:].any()


def test_lengths_have_documented_distribution():
    varying = windows(window=70)
    lengths = np.diff([varying.start(p) for p in range(20_001)])
    assert lengths.min() >= 5 and lengths.max() == varying.longest == 80
    half = lengths < 52
    assert half.mean() == pytest.approx(0.05, abs=0.006)  # σ = .0015
    # truncation to an integer lowers the mean by .5
    assert lengths[half].mean() == pytest.approx(34.5, abs=0.6)
    assert lengths[half].std() == pytest.approx(5, rel=0.1)
    assert np.median(lengths[~half]) == 69 and lengths[~half].std() == pytest.approx(5, rel=0.05)


@pytest.mark.parametrize("window", [1, 3, 8])
def test_short_windows_have_bounded_lengths(window):
    lengths = windows(window)(0).lengths, np.diff([windows(window).start(p) for p in range(500)])
    assert min(lengths[1]) == min(5, window) and max(lengths[1]) == window + 10
    assert lengths[0][0] == lengths[1][0]


def test_window_depends_on_position_and_seed():
    forth, back = windows(), windows()
    at = [0, 1, 7, 1500, 3]
    last = [back(p) for p in at[::-1]][::-1]
    for one, other in zip([forth(p) for p in at], last, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    starts = [[windows(seed=seed).start(p) for p in range(20)] for seed in (0, 1)]
    assert starts[0] != starts[1]
    blocks = [np.diff([forth.start(p) for p in range(b, b + 1024)]) for b in (0, 1024)]
    assert not np.array_equal(*blocks)


def test_windows_end_differently_in_each_pass():
    varying = windows()
    ends = [{varying.start(p) - n * STEPS for p in range(120)} for n in range(2)]
    inside = [{e for e in some if 0 < e < STEPS} for some in ends]
    assert len(inside[0] & inside[1]) < 5


def test_varying_windows_reject_invalid_sizes():
    with pytest.raises(TextError, match="batch 3 × window 400 needs 1201: use a smaller `batch`"):
        windows(window=400)
    with pytest.raises(ValueError, match="window is 0, but must be a whole number of at least 1"):
        windows(window=0)
    with pytest.raises(ValueError, match="seed is -1, but must be a whole number of at least 0"):
        windows(seed=-1)


@pytest.mark.parametrize(
    "position, fault",
    [
        (-1, "a whole number of at least 0"),
        (float("inf"), "a whole number of at least 0"),
        (float("nan"), "a whole number of at least 0"),
        (2.0, "a whole number of at least 0"),
        (2**31, "at most 2147483647"),
        (10**30, "at most 2147483647"),
    ],
)
def test_varying_windows_reject_invalid_position(position, fault):
    for ask in (windows(), windows().start):
        with pytest.raises(ValueError, match=f"^position is .*, but must be {fault}$"):
            ask(position)


def test_mean_length_is_mean_of_first_block():
    varying = windows(window=70)
    assert varying.mean_length == varying.start(1024) / 1024 == pytest.approx(68, abs=1)


def test_varying_rows_are_read_only():
    assert not any(array.flags.writeable for array in windows().rows.read(np.arange(3)))
