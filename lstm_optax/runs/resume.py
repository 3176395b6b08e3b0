"""Resume a run: check its options and its text, and restore its state; imports no JAX."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lstm_optax.runs.constraints import OptionError, flag_of
from lstm_optax.runs.options import LOGGERS, TrainConfig
from lstm_optax.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from lstm_optax.checkpoints import Checkpoints
    from lstm_optax.runs.corpus import Corpus
    from lstm_optax.training import TrainState

# The text's content is compared instead of its name and encoding; devices, and the split of the
# state over them, change rounding only.
MAY_DIFFER = (
    "text",
    "encoding",
    "devices",
    "shard_state",
    "checkpoint_every",
    "keep",
    "keep_every",
    "baselines",
    *LOGGERS,
)


def check_resume(run: RunFolder, config: TrainConfig) -> None:
    """Raise OptionError if a run cannot be continued with this configuration.

    The options in `MAY_DIFFER` may differ from those of the run, and with a constant schedule also
    the steps.
    """
    run.check_path()
    stored, _ = run.read_config()
    changed = {
        name: value
        for name, value in vars(stored).items()
        if value != getattr(config, name) and name not in MAY_DIFFER
    }
    if set(changed) == {"steps"}:
        if config.schedule != "constant":
            raise OptionError(
                f"--resume with --steps {config.steps}: the run was started with --steps "
                f"{stored.steps}, on which its {config.schedule} schedule depends; only a run with "
                "--schedule constant can be extended"
            )
    elif changed:
        flags = ", ".join(_format_flag(name, value) for name, value in changed.items())
        raise OptionError(
            f"--resume: the run in {run.path} has {flags}; leave these flags out to continue it, "
            "or start another run with --run DIR"
        )


def resumed_config(
    run: RunFolder, config: TrainConfig, corpus: "Corpus", warn: Callable[[str], None]
) -> TrainConfig:
    """Return the configuration with the devices of a resumed run.

    Raises:
      OptionError: the run cannot be continued with this configuration or this text.
    """
    check_resume(run, config)
    stored, facts = run.read_config()
    if facts["text"]["sha256"] != corpus.sha256:
        raise OptionError(
            f"--resume: the text {corpus.name} differs from the text of the run; pass the original "
            "text with --text FILE, or start another run with --run DIR"
        )
    devices = config.devices or stored.devices
    if devices != stored.devices:
        warn(
            f"the run used {stored.devices} devices and continues with {devices}: the results "
            "differ by rounding only"
        )
    return replace(config, devices=devices)


def restore_run(
    run: RunFolder,
    checkpoints: "Checkpoints",
    config: TrainConfig,
    state: "TrainState",
    warn: Callable[[str], None],
) -> "tuple[TrainState, list[dict[str, Any]]]":
    """Return the state of the newest intact checkpoint, and the records up to its step.

    Later rows are removed from the logs.

    Args:
      run: the run to continue.
      checkpoints: those of the run.
      config: configuration of the continued run.
      state: an initial state, for its structure.
      warn: called with a message for each damaged checkpoint, and for lost records.

    Raises:
      OptionError: the run has already taken more steps than the configuration has.
      CheckpointError: there is no intact checkpoint, or it has another structure.
    """
    step, state, damaged = checkpoints.restore(state)
    if step > config.steps:
        raise OptionError(
            f"--resume with --steps {config.steps}: the run has already taken {step} steps"
        )
    for bad in damaged:
        warn(f"the checkpoint of step {bad} is damaged; continuing from step {step}")
    history = run.cut_records(step, _past_events(run, step, state))
    lost = step // config.eval_every - len(history)
    if lost > 0:
        warn(f"{run.records.path} is damaged; records lost: {lost}")
    return state, history


def _past_events(run: RunFolder, step: int, state: "TrainState") -> "list[dict[str, Any]]":
    """Return the events up to a step, without the rewinds that the resumed run will repeat."""
    events = run.events.read(step)
    done = sum(record.get("rewinds", 0) for record in run.records.read(step))
    done += int(state.sums.rewinds)
    repeated = [row for row in events if row["event"] == "rewind"][done:]
    return [row for row in events if row not in repeated]


def _format_flag(name: str, value: Any) -> str:
    """Return the flag that sets an option to a value, such as --tied or --seed 3."""
    if value is None or value is False or value == ():
        return f"no {flag_of(name)}"
    if isinstance(value, tuple):
        return " ".join(f"{flag_of(name)} {item}" for item in value)
    return flag_of(name) if value is True else f"{flag_of(name)} {value}"
