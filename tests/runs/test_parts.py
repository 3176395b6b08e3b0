"""The parts of a run that several versions trained: what is kept, and what is said."""

import pytest

from lstm_optax.runs.parts import continue_parts

OLD, NEW = {"python": "3.11", "jax": "0.10.0"}, {"python": "3.13", "jax": "0.12.1"}
TWO = [{"step": 0, "versions": OLD}, {"step": 40, "versions": NEW}]


@pytest.mark.parametrize(
    "facts, step, versions, parts, changes",
    [
        ({}, 0, NEW, [{"step": 0, "versions": NEW}], ""),
        ({"parts": TWO[:1]}, 40, OLD, TWO[:1], ""),
        ({"parts": TWO[:1]}, 40, NEW, TWO, "python 3.11 → 3.13, jax 0.10.0 → 0.12.1"),
        ({"parts": TWO}, 60, NEW, TWO, ""),
        ({"parts": TWO}, 40, NEW, TWO, "python 3.11 → 3.13, jax 0.10.0 → 0.12.1"),
        ({"parts": TWO}, 40, OLD, TWO[:1], ""),
        ({"parts": TWO}, 20, NEW | {"python": "3.11"}, None, "jax 0.10.0 → 0.12.1"),
        ({"parts": TWO}, 0, OLD, TWO[:1], ""),
        ({"versions": {"jax": "0.10.0"}}, 40, NEW, None, "jax 0.10.0 → 0.12.1"),
        (
            {"versions": {"jax": "0.12.1"}},
            40,
            NEW,
            [{"step": 0, "versions": {"jax": "0.12.1"}}],
            "",
        ),
    ],
    ids=[
        "a new run",
        "the same versions",
        "other versions",
        "the new versions again",
        "no checkpoint under the new ones",
        "back before any checkpoint",
        "back to an earlier checkpoint",
        "back to the beginning",
        "an older run",
        "an older run without Python",
    ],
)
def test_parts_lose_a_version(facts, step, versions, parts, changes):
    found = continue_parts(facts, step, versions)
    assert found[1] == changes
    if parts is not None:
        assert found[0] == parts
    else:
        assert found[0][-1] == {"step": step, "versions": versions} and len(found[0]) == 2
