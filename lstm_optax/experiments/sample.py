"""Text from a trained run."""

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

__all__ = ["sample_text"]


def sample_text(folder: Path, config: SampleConfig) -> str:
    """Return the prompt and what the best model of a run writes after it.

    Raises:
      OptionError: an option that cannot be, or no run there.
      TextError: a character of the prompt is not in the run's vocabulary.
      CheckpointError: the run has no whole checkpoint.
    """
    config.check()
    run = RunFolder(folder)
    trained, facts = run.read_config()
    vocabulary = Vocabulary.of(facts["text"]["vocabulary"])
    prompt = vocabulary.characters[0] if config.prompt is None else config.prompt
    codes = jnp.asarray(vocabulary.encode(prompt))
    model = make_model(trained, len(vocabulary))
    state = make_state(trained, model, make_optimizer(trained, make_schedule(trained)))
    best = best_record(run.read_records())
    prefer = best["step"] if best else None
    _, state, _ = Checkpoints(run.checkpoints).restore(state, prefer=prefer)
    graphdef = nnx.graphdef(model)

    @jax.jit
    def generate(params, key):
        model: LanguageModel = nnx.merge(graphdef, params)
        return model.generate(key, codes, config.length, temperature=config.temperature)

    drawn = jax.device_get(generate(state.params, jax.random.key(config.seed)))
    return prompt + vocabulary.decode(drawn)
