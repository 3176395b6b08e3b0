"""Generate text with the model of a run."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lstm_optax.data import Vocabulary, WordVocabulary
from lstm_optax.data.tokens import AnyVocabulary
from lstm_optax.models import LanguageModel
from lstm_optax.runs.constraints import OptionError
from lstm_optax.runs.loading import load_run
from lstm_optax.runs.options import SampleConfig
from lstm_optax.runs.run_folder import RunFolder, known_characters

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
    config.check(known_characters(facts))
    loaded = load_run(folder)
    for bad in loaded.damaged:
        warn(f"the checkpoint of step {bad} is damaged; using the checkpoint of step {loaded.step}")
    vocabulary = loaded.vocabulary
    prompt = _default_prompt(vocabulary) if config.prompt is None else config.prompt
    codes = vocabulary.encode(prompt)
    if not len(codes):
        raise OptionError(f"--prompt {prompt!r} has no {vocabulary.unit}s: pass at least one")
    graphdef, weights = nnx.split(loaded.model)

    @jax.jit
    def generate(weights, key):
        model: LanguageModel = nnx.merge(graphdef, weights)
        return model.generate(
            key, jnp.asarray(codes), config.length, temperature=config.temperature
        )

    drawn = jax.device_get(generate(weights, jax.random.key(config.seed)))
    return vocabulary.decode(np.concatenate([codes, drawn]))


def _default_prompt(vocabulary: AnyVocabulary) -> str:
    if isinstance(vocabulary, WordVocabulary):
        return "\n"  # the model continues as after the end of a line
    prompt = "The "
    if isinstance(vocabulary, Vocabulary) and not set(prompt) <= set(vocabulary.characters):
        return vocabulary.characters[0]
    return prompt
