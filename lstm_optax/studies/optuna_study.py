"""Optuna's study: its storage, its sampler and its log messages."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lstm_optax.records import Record, as_json
from lstm_optax.studies.study_records import StudyError
from lstm_optax.studies.trial import TUNING_SEED

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage, RDBStorage
    from optuna.trial import FrozenTrial

MADE_FOR = "made_for"  # attribute of a study in the storage
CREATED_ELSEWHERE = ("already exists", "UNIQUE constraint", "database is locked")
"""Parts of the errors of a database that two processes create at the same time."""


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence Optuna's messages about each trial inside the context.

    Raises:
      StudyError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise StudyError(
            "Optuna is needed to choose hyper-parameters: pip install 'lstm_optax[optuna]'"
        ) from error
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@contextlib.contextmanager
def open_study(
    storage: str | BaseStorage | None,
    name: str,
    larger_is_better: bool,
    sampler: BaseSampler | None,
    made_for: Record,
) -> Iterator[Study]:
    """A context with a study of a storage, which is created on demand.

    Args:
      storage: a URL or an object of Optuna; None for memory.
      name: of the study.
      larger_is_better: the direction.
      sampler: None for TPE with a seed.
      made_for: what the results depend on; a study with other facts is refused.

    Raises:
      StudyError: a storage that cannot be opened, a study in it with other facts, or a sampler that
        cannot be asked.
    """
    import optuna

    if isinstance(sampler, optuna.samplers.GridSampler | optuna.samplers.BruteForceSampler):
        kind = type(sampler).__name__  # it stops a loop of Optuna, and fails without one
        raise StudyError(f"sampler is a {kind}, but that one tries a grid: call sweep with a grid")
    opened = _open_storage(storage) if isinstance(storage, str) else None
    try:
        study = optuna.create_study(
            storage=opened or storage,
            study_name=name,
            direction="maximize" if larger_is_better else "minimize",
            sampler=sampler or _make_sampler(),
            load_if_exists=True,
        )
        _check_same_sweep(study, made_for)
        yield study
    finally:
        if opened is not None:
            opened.remove_session()
            opened.engine.dispose()


def _open_storage(url: str) -> RDBStorage:
    """Open a database, which is created on demand; again if another process creates it now."""
    from optuna.storages import RDBStorage

    for pause in (0.2, 0.5, 1.0, None):
        try:
            return RDBStorage(url)
        except Exception as error:  # of SQLAlchemy, of the driver, or of Optuna
            if pause is None or not any(text in str(error) for text in CREATED_ELSEWHERE):
                raise StudyError(
                    f"the storage {url!r} cannot be opened: pass a URL such as "
                    f"'sqlite:///sweep.db' ({type(error).__name__}: {error})"
                ) from error
        time.sleep(pause)
    raise AssertionError  # the last attempt has returned or raised


def _check_same_sweep(study: Study, made_for: Record) -> None:
    """Store what the results depend on; raise StudyError if it differs from what is stored."""
    wanted = json.dumps(as_json(made_for), sort_keys=True)
    found = study.user_attrs.get(MADE_FOR)
    if found is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(MADE_FOR, wanted)
    elif found != wanted:
        differing = _first_difference(json.loads(found or "{}"), json.loads(wanted))
        raise StudyError(
            f"the study {study.study_name!r} in the storage has {differing}: pass another "
            "study_name"
        )


def _first_difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    for part, facts in wanted.items():
        for name, new in facts.items():
            old = found.get(part, {}).get(name)
            if old != new:
                return f"{name} {old}, but this sweep has {new}"
    return "other settings than this sweep"


def _make_sampler() -> BaseSampler:
    """Return TPE with a new seed for each trial, TUNING_SEED plus the trial's number.

    What it chooses depends on the study alone: a resumed sweep draws the same numbers as an
    unbroken one, and several processes draw different ones.
    """
    from optuna.samplers import BaseSampler, TPESampler

    class SeededByNumber(BaseSampler):
        def __init__(self):
            self._tpe = TPESampler(seed=TUNING_SEED)

        def before_trial(self, study: Study, trial: FrozenTrial) -> None:
            # constant_liar: trials that run elsewhere count as bad, so that they are not repeated
            self._tpe = TPESampler(seed=TUNING_SEED + trial.number, constant_liar=True)

        def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Any:
            return self._tpe.infer_relative_search_space(study, trial)

        def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Any) -> Any:
            return self._tpe.sample_relative(study, trial, search_space)

        def sample_independent(
            self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any
        ) -> Any:
            return self._tpe.sample_independent(study, trial, param_name, param_distribution)

    return SeededByNumber()
