"""Iterables of batches: read by position, restored from a checkpoint, and ended."""

import json
import traceback
import warnings

import chex
import jax
import numpy as np
import pytest
import toy

import lstm_optax as lo

OPTIONS = dict(steps=12, eval_every=4, steps_per_dispatch=3)


class Counter:
    """An endless iterator with the place protocol of Grain, in dictionaries or bytes."""

    def __init__(self, *, as_bytes=False):
        self.next, self.as_bytes = 0, as_bytes

    def __iter__(self):
        return self

    def __next__(self):
        self.next += 1
        return toy.batches(self.next - 1)

    def get_state(self):
        return bytes([255, self.next]) if self.as_bytes else {"next": self.next}

    def set_state(self, state):
        self.next = state[1] if self.as_bytes else state["next"]


class Epochs:
    """An iterable of five batches whose every iterator can be restored."""

    def __iter__(self):
        return FiveBatches()


class FiveBatches(Counter):
    def __next__(self):
        if self.next == 5:
            raise StopIteration
        return super().__next__()


class Tensor:
    """An array of another library, which does not copy on request."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


def grain_shuffled():
    """Return a dataset of Grain in which each batch has a random offset."""
    grain = pytest.importorskip("grain")
    batch = lambda i, rng: jax.tree.map(lambda x: x + rng.random(dtype="f4"), toy.batches(i))  # noqa: E731
    return grain.MapDataset.range(7).shuffle(seed=3).seed(5).random_map(batch)


def grain_iterable():
    return grain_shuffled().to_iter_dataset()


def grain_data_loader():
    grain = pytest.importorskip("grain")
    samples = grain.samplers.IndexSampler(7, shuffle=True, seed=3)
    source = [toy.batches(i) for i in range(7)]
    threads = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    return grain.DataLoader(
        data_source=source, sampler=samples, worker_count=0, read_options=threads
    )


def fit(batches, state=None, **options):
    return lo.fit(toy.STEP, state or toy.start()[1], batches, **OPTIONS | options)


def fit_warned(batches, match="cannot tell its position", **options):
    with pytest.warns(UserWarning, match=match) as caught:
        result = fit(batches, **options)
    assert [warning.filename for warning in caught] == [__file__]
    return result


def assert_same_run(found, expected):
    chex.assert_trees_all_equal(found.state, expected.state)
    losses = [[record["train_loss"] for record in r.history] for r in (found, expected)]
    assert losses[0] == losses[1] and found.reason == expected.reason


SOURCES = {
    "states": Counter,
    "bytes": lambda: Counter(as_bytes=True),
    "epochs": Epochs,
    "grain": grain_iterable,
    "grain loader": grain_data_loader,
}


@pytest.mark.parametrize("dispatches", [1, 2, 4])
@pytest.mark.parametrize("name", SOURCES)
def test_resumed_iterable_equals_unbroken_run(name, dispatches, tmp_path):
    """The run ends at a record or in the middle of an interval; the data are made again."""
    unbroken = fit(lo.BatchStream(SOURCES[name]()))
    stream, stops = lo.BatchStream(SOURCES[name]()), iter([False] * dispatches + [True])
    first = fit(stream, should_stop=lambda: next(stops))
    params = jax.device_get(first.state.params)
    checkpoints, place = lo.Checkpoints(tmp_path), stream.state(first.state.position)
    checkpoints.save(1, first.state._asdict() | {"batches": place})
    again = lo.BatchStream(SOURCES[name]())
    _, saved, _ = checkpoints.restore(toy.start()[1]._asdict() | {"batches": again.state(0)})
    again.restore(saved.pop("batches"))
    state = lo.TrainState(**saved)
    assert_same_run(fit(again, state, history=first.history), unbroken)
    chex.assert_trees_all_equal(lo.read_params(tmp_path).params, params)


def test_saved_place_excludes_batches_read_ahead():
    source, places = Counter(), []
    stream = lo.BatchStream(source)

    def save(history, state):
        saved = json.loads(bytes(stream.state(state.position)))
        places.append((saved, int(state.position), source.next))

    fit(stream, on_record=save)
    expected = [({"position": p, "json": {"next": p}}, p) for p in (4, 8, 12)]
    assert [place[:2] for place in places] == expected
    assert [ahead for *_, ahead in places] == [6, 9, 12]


class Broken(Counter):
    """An iterator whose targets are NaN from position 4."""

    def __next__(self):
        x, y = super().__next__()
        return x, y * np.float32(np.nan if self.next > 4 else 1)


def test_place_of_stop_inside_dispatch_is_known():
    """A guard gives up in the middle of a dispatch."""
    stream = lo.BatchStream(Broken())
    step, state = toy.start(lo.guard(toy.OPTIMIZER, max_consecutive_errors=2))
    result = lo.fit(step, state, stream, steps=24, steps_per_dispatch=8)
    assert result.reason == "gave_up" and int(result.state.position) == 6
    assert json.loads(bytes(stream.state(result.state.position)))["json"] == {"next": 6}


@pytest.mark.parametrize("kind", [list, tuple])
def test_sequence_begins_again_at_its_end(kind):
    batches = [toy.batches(position) for position in range(5)]
    expected = fit(lambda position: batches[position % 5])
    assert_same_run(fit(kind(batches)), expected)
    stacked = np.stack([x for x, _ in batches])  # rows of an array are batches, too
    pairs = lo.make_step(lambda p, c, x, key: toy.loss(p, c, (x, x), key), toy.OPTIMIZER)
    ends = [lo.fit(pairs, toy.start()[1], b, steps=7) for b in (stacked, list(stacked))]
    assert_same_run(*ends)


def test_grain_map_dataset_needs_no_stream():
    """Each epoch of seven batches has its own order, and the position alone resumes it."""
    dataset = grain_shuffled()
    expected = fit(lambda position: dataset[position])
    stops = iter([False, False, True])
    first = fit(dataset, should_stop=lambda: next(stops))
    assert_same_run(fit(grain_shuffled(), first.state, history=first.history), expected)
    orders = [[float(dataset[i + e][0][0, 0]) for i in range(7)] for e in (0, 7)]
    assert orders[0] != orders[1]


def test_iterable_is_iterated_again_at_its_end():
    five = [toy.batches(position) for position in range(5)]
    assert_same_run(fit(lo.BatchStream(Epochs())), fit(five))


def test_generator_ends_run_without_error():
    result = fit_warned(toy.batches(position) for position in range(8 - 1))
    assert result.reason == "data" and int(result.state.step) == 7
    assert [record["step"] for record in result.history] == [4]
    expected = fit(toy.batches, steps=7)
    chex.assert_trees_all_equal(result.state.params, expected.state.params)
    resumed = fit(toy.batches, result.state, history=result.history)
    assert_same_run(resumed, fit(toy.batches))


def test_one_stream_serves_two_fits():
    """The batches that the first read ahead are not lost."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stream, stops = lo.BatchStream(map(toy.batches, range(99))), iter([False, True])
        first = fit(stream, should_stop=lambda: next(stops))
        assert first.reason == "interrupted" and int(first.state.step) == 3
        second = fit(stream, first.state, history=first.history)
    assert_same_run(second, fit(toy.batches))


def test_bare_iterable_warns_of_lost_position():
    fit_warned(Counter(), match=r"not saved: pass BatchStream\(batches\), and save its state")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(lo.BatchStream(Counter()))
        fit([toy.batches(0)])


def test_reused_buffer_and_tensors_are_copied():
    def batches():
        buffers = jax.tree.map(np.copy, toy.batches(0))
        for position in range(99):
            for buffer, new in zip(buffers, toy.batches(position), strict=True):
                buffer[:] = new
            yield Tensor(buffers[0]), buffers[1]

    assert_same_run(fit_warned(batches()), fit(toy.batches))
    tensors = [tuple(map(Tensor, toy.batches(position))) for position in range(12)]
    assert_same_run(fit(tensors), fit(toy.batches))


def test_on_record_skips_batches_of_stream():
    def skip(history, state):
        return state._replace(position=state.position + len(history))

    stream = lo.BatchStream(Counter())
    assert_same_run(fit(stream, on_record=skip), fit(toy.batches, on_record=skip))

    def go_back(history, state):
        return state._replace(position=state.position - 4)

    with pytest.raises(ValueError, match="training is at position 0, and the batches are at 6"):
        fit(lo.BatchStream(Counter()), on_record=go_back)
    assert fit(toy.batches, on_record=go_back).reason == "steps"


def test_error_of_iterable_comes_after_records():
    def batches():
        yield from map(toy.batches, range(9))
        raise OSError("the disk is gone")

    records = []
    with (
        pytest.raises(OSError, match="the disk is gone") as caught,
        pytest.warns(UserWarning, match="cannot tell"),
    ):
        fit(batches(), on_record=lambda history, state: records.append(int(state.step)))
    assert records == [4, 8]
    assert "batches" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


@pytest.mark.parametrize(
    "batches, message",
    [
        ({"a": 1}, "batches is of type dict; expected a function position → batch, a sequence of "),
        (3, "batches is of type int; expected a function"),
        ([], "batches is empty; expected at least one batch"),
        (["ab"], r"batches\(0\) is a tree with str in it; expected a tree of arrays"),
    ],
)
def test_fit_rejects_what_holds_no_batches(batches, message):
    with pytest.raises(ValueError, match=message):
        fit(batches)


def test_spent_iterator_is_rejected():
    spent = map(toy.batches, [])
    with (
        pytest.raises(ValueError, match="is empty, or an iterator that was read to its end"),
        pytest.warns(UserWarning),
    ):
        fit(spent)


def test_stream_at_another_position_is_rejected():
    state = fit(toy.batches, steps=6).state
    message = r"training is at position 6, and the batches are at 0: restore .* position=6\)"
    with pytest.raises(ValueError, match=message):
        fit(lo.BatchStream(Counter()), state)
    source = Counter()
    source.next = 6
    assert_same_run(
        fit(lo.BatchStream(source, position=6), fit(toy.batches, steps=6).state),
        fit(toy.batches, fit(toy.batches, steps=6).state),
    )
    with pytest.raises(ValueError, match="position is -1, but must be a whole number"):
        lo.BatchStream(Counter(), position=-1)


def test_restore_rejects_what_cannot_be_restored():
    stream, unable = lo.BatchStream(Counter()), lo.BatchStream(iter([1]))
    assert stream.can_restore and not unable.can_restore
    for saved in (unable.state(0), stream.state(0)):
        with pytest.raises(ValueError, match="list_iterator cannot be moved to position 0, which"):
            unable.restore(saved)
    with pytest.raises(ValueError, match="Counter cannot be moved to position 0"):
        stream.restore(unable.state(0))
    for saved in (np.zeros(4, np.uint8), b"x", stream.state(0)[:5], np.full(3, -1), None):
        with pytest.raises(ValueError, match="saved is not what BatchStream.state returned"):
            stream.restore(saved)


def test_state_rejects_unknown_places():
    stream = lo.BatchStream(Counter())
    with pytest.raises(ValueError, match="the place of position 2 is not known: the batches are "):
        stream.state(2)
    source = Counter()
    source.get_state = lambda: {"next": np.zeros(2)}
    with pytest.raises(ValueError, match="Counter.get_state returns what a checkpoint cannot hold"):
        fit(lo.BatchStream(source))


def test_state_size_changes_rarely():
    source = Counter()
    stream = lo.BatchStream(source)
    assert stream.state(0).shape == (16384,) and stream.state(0).dtype == np.uint8
    source.get_state = lambda: {"next": 0, "more": "é" * 20000}
    saved = stream.state(0)
    assert saved.shape == (131072,)
    stream.restore(saved)
