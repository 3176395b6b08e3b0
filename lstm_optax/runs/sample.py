"""Generate text with the model of a run."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

from lstm_optax.data import Vocabulary
from lstm_optax.models import LanguageModel
from lstm_optax.runs.loading import load_run
from lstm_optax.runs.options import SampleConfig
from lstm_optax.runs.run_folder import RunFolder

__all__ = ["sample_text"]


def sample_text(
    folder: Path, config: SampleConfig, *, warn: Callable[[str], None] = lambda message: None
) -> str:
    """Return the prompt and its continuation by the best model of a run.

    If the optimizer kept an average of the parameters, the average is used.

    Args:
      folder: run folder.
      config: options of the sampling.
      warn: called with a message for each damaged checkpoint, which is skipped.

    Raises:
      OptionError: an option is invalid, the prompt has characters that the run's text does not
        contain, or the folder contains no run.
      CheckpointError: the run has no intact checkpoint.
    """
    run = RunFolder(folder)
    _, facts = run.read_config()
    config.check(facts["text"]["vocabulary"])
    loaded = load_run(folder)
    for bad in loaded.damaged:
        warn(f"the checkpoint of step {bad} is damaged; using the checkpoint of step {loaded.step}")
    vocabulary = loaded.vocabulary
    prompt = _default_prompt(vocabulary) if config.prompt is None else config.prompt
    codes = jnp.asarray(vocabulary.encode(prompt))
    graphdef, weights = nnx.split(loaded.model)

    @jax.jit
    def generate(weights, key):
        model: LanguageModel = nnx.merge(graphdef, weights)
        return model.generate(key, codes, config.length, temperature=config.temperature)

    drawn = jax.device_get(generate(weights, jax.random.key(config.seed)))
    return prompt + vocabulary.decode(drawn)


def _default_prompt(vocabulary: Vocabulary) -> str:
    prompt = "The "
    return prompt if set(prompt) <= set(vocabulary.characters) else vocabulary.characters[0]
