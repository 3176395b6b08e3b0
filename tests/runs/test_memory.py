"""Memory that a training needs, compared with the free memory."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from lstm_optax import TrainConfig
from lstm_optax.runs import OptionError, memory
from lstm_optax.runs.build import (
    abstract_state,
    make_model,
    make_optimizer,
    make_schedule,
    make_state,
)
from lstm_optax.runs.memory import (
    activation_bytes,
    check_memory,
    free_memory,
    memory_in_use,
)

SIZES = dict(hidden=8, embedding=4, layers=2, batch=2, window=8)
CPU = SimpleNamespace(platform="cpu", process_index=0)


def state_of(config: TrainConfig):
    return abstract_state(config, 5, make_optimizer(config, make_schedule(config)))


def needed(config: TrainConfig, monkeypatch, devices=(CPU,), **options) -> int:
    """Return the smallest free memory that check_memory accepts, in bytes."""
    low, high, state = 0, 2**50, state_of(config)
    while low < high:
        middle = (low + high) // 2
        monkeypatch.setattr(memory, "free_memory", lambda free=middle: free)
        try:
            check_memory(state, activation_bytes(config, 5), devices, **options)
            high = middle
        except OptionError:
            low = middle + 1
    return low


def test_abstract_state_matches_built_state():
    config = TrainConfig(**SIZES)
    optimizer = make_optimizer(config, make_schedule(config))
    built = make_state(make_model(config, 5), optimizer, rows=2, seed=0)
    abstract = abstract_state(config, 5, optimizer)
    assert jax.tree.structure(built) == jax.tree.structure(abstract)
    for one, other in zip(jax.tree.leaves(built), jax.tree.leaves(abstract), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)


def test_needed_memory_matches_formula(monkeypatch):
    config = TrainConfig(**SIZES, optimizer="sgd", schedule="constant")
    parameters = 5 * 4 + (4 + 8 + 1) * 32 + (8 + 8 + 1) * 32 + (8 + 1) * 5
    activations = 2 * 8 * (4 * (4 + 6 * 8 * 2) + 2 * 4 * 5)
    least = 2 * 4 * parameters + activations  # parameters and gradient
    assert least < needed(config, monkeypatch) < least + 500  # the carry, key, sums and counts
    extra = needed(TrainConfig(**SIZES, optimizer="adam"), monkeypatch) - least
    assert 8 * parameters <= extra < 8 * parameters + 500  # two moments
    twice = needed(config, monkeypatch, devices=(CPU, CPU))
    assert twice > 2 * (least - activations) + activations
    split = needed(config, monkeypatch, devices=(CPU, CPU), shard=True)
    assert split < (2 + 4) * 4 * parameters + activations + 1000  # half the state, and a gather
    other = SimpleNamespace(platform="cpu", process_index=1)
    assert needed(config, monkeypatch, devices=(CPU, other)) < least - activations // 2 + 500


@pytest.mark.parametrize(
    "sizes", [dict(hidden=10**6), dict(embedding=2**20, hidden=2**20, layers=2)]
)
def test_check_memory_rejects_large_model(sizes):
    config = TrainConfig(**sizes)
    with pytest.raises(OptionError, match=r"needs at least [\d,.]+ GiB of memory: .* GiB are free"):
        check_memory(state_of(config), activation_bytes(config, 5), (CPU,))


def test_accelerator_memory_limit():
    config = TrainConfig(**SIZES)

    def check(stats):
        gpu = SimpleNamespace(platform="gpu", process_index=0, memory_stats=lambda: stats)
        check_memory(state_of(config), activation_bytes(config, 5), (gpu,))

    with pytest.raises(OptionError, match="needs at least 0.0 GiB"):
        check({"bytes_limit": 1000})
    for stats in ({"bytes_limit": 10**9}, {}, None):
        check(stats)


def test_cgroup_limits_free_memory(tmp_path, monkeypatch):
    machine = free_memory()
    assert 2**20 < machine
    limit, use = tmp_path / "limit", tmp_path / "use"
    monkeypatch.setattr(memory, "CGROUPS", ((str(limit), str(use)),))
    for text, expected in (("5000", 3000), ("1000", 0)):
        limit.write_text(text)
        use.write_text("2000")
        assert free_memory() == expected
    limit.write_text("max")
    assert free_memory() > 2**20


def test_memory_in_use_counts_host_and_devices():
    block = np.ones(2**24)  # 128 MiB
    before = memory_in_use(jax.devices())["host_memory"]
    assert before > block.nbytes
    stats = [None, {"peak_bytes_in_use": 3}, {"peak_bytes_in_use": 5}, {"bytes_limit": 9}]
    devices = [SimpleNamespace(memory_stats=lambda stat=stat: stat) for stat in stats]
    assert memory_in_use(devices)["device_memory"] == 5
    assert memory_in_use(devices[:1]).keys() == {"host_memory"}
