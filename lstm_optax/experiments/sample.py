"""Text from a trained run."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

from lstm_optax.data import Vocabulary
from lstm_optax.experiments.language import (
    make_model,
    make_optimizer,
    make_schedule,
    make_state,
)
from lstm_optax.experiments.options import SampleConfig
from lstm_optax.experiments.run_folder import RunFolder
from lstm_optax.models import LanguageModel
from lstm_optax.training import Checkpoints, best_record
from lstm_optax.transforms import eval_params

__all__ = ["sample_text"]


def sample_text(
    folder: Path, config: SampleConfig, *, warn: Callable[[str], None] = lambda message: None
) -> str:
    """Return the prompt and what the best model of a run writes after it.

    Where the optimizer keeps an average of the parameters, the average writes.

    Args:
      folder: of the run.
      config: what to write.
      warn: is told of a damaged checkpoint, in whose place another one writes.

    Raises:
      OptionError: an option that cannot be, a prompt of other characters than the run's text, or
        no run there.
      CheckpointError: the run has no whole checkpoint.
    """
    run = RunFolder(folder)
    trained, facts = run.read_config()
    config.check(facts["text"]["vocabulary"])
    vocabulary = Vocabulary.of(facts["text"]["vocabulary"])
    prompt = _default_prompt(vocabulary) if config.prompt is None else config.prompt
    codes = jnp.asarray(vocabulary.encode(prompt))
    model = make_model(trained, len(vocabulary))
    state = make_state(trained, model, make_optimizer(trained, make_schedule(trained)))
    best = best_record(run.read_records())
    prefer = best["step"] if best else None
    step, state, damaged = Checkpoints(run.checkpoints).restore(state, prefer=prefer)
    for bad in damaged:
        warn(f"the checkpoint of step {bad} is damaged; sampling from that of step {step}")
    graphdef = nnx.graphdef(model)

    @jax.jit
    def generate(params, key):
        model: LanguageModel = nnx.merge(graphdef, params)
        return model.generate(key, codes, config.length, temperature=config.temperature)

    params = eval_params(state.opt_state, state.params)
    drawn = jax.device_get(generate(params, jax.random.key(config.seed)))
    return prompt + vocabulary.decode(drawn)


def _default_prompt(vocabulary: Vocabulary) -> str:
    prompt = "The "
    return prompt if set(prompt) <= set(vocabulary.characters) else vocabulary.characters[0]
