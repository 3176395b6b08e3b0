"""Options: invalid values are named in the error, with a remedy."""

import inspect
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax.contrib
import pytest

from lstm_optax import OPTIMIZERS, LSTMParams, TrainConfig, find_states
from lstm_optax.names import DECAYING_OPTIMIZERS, RESCALING_OPTIMIZERS
from lstm_optax.runs import OptionError, SampleConfig
from lstm_optax.transforms import AverageState

HUGE = 10**400  # too large for a float

BAD = [
    ("optimizer", "adm", "--optimizer: unknown optimizer 'adm'; the nearest is 'adam'"),
    ("optimizer", "", "--optimizer: unknown optimizer ''"),
    ("learning_rate", 0.0, "--learning-rate is 0.0, but must be a finite number above 0"),
    ("learning_rate", -1e-3, "--learning-rate is -0.001, but must be a finite number above 0"),
    ("learning_rate", math.nan, "--learning-rate is nan, but must be a finite number above 0"),
    ("learning_rate", math.inf, "--learning-rate is inf, but must be a finite number above 0"),
    ("schedule", "cosin", "--schedule is 'cosin', but must be 'constant' or 'cosine' or 'linear'"),
    ("dtype", "float8", "--dtype is 'float8', but must be 'float32' or 'bfloat16' or 'float16'"),
    ("warmup", -1, "--warmup is -1, but must be a whole number from 0 to 2,147,483,647"),
    ("warmup", 400, "--warmup is 400, but must be less than --steps, which is 400"),
    ("clip", -1.0, "--clip is -1.0, but must be a finite number of at least 0"),
    ("clip_gates", -10.0, "--clip-gates is -10.0, but must be a finite number of at least 0"),
    ("clip_gates", math.inf, "--clip-gates is inf, but must be a finite number of at least 0"),
    ("guard", -1, "--guard is -1, but must be a whole number from 0 to 2,147,483,647"),
    ("clip", math.inf, "--clip is inf, but must be a finite number of at least 0"),
    ("weight_decay", -0.1, "--weight-decay is -0.1, but must be a finite number of at least 0"),
    (
        "weight_decay",
        0.1,
        "--weight-decay: nadam has no weight decay; these optimizers have one: nadamw, awd_",
    ),
    ("set", ("b1",), "--set 'b1' is not a name and a value: write --set NAME=VALUE"),
    ("set", ("b1=0", "b1=1"), "--set b1 is given twice, as 0 and as 1"),
    ("set", ("learning_rate=1",), "--set learning_rate=1: the learning rate has an option of its"),
    ("dropout", 1.0, "--dropout is 1.0, but must be a number in [0, 1)"),
    ("dropout", -0.1, "--dropout is -0.1, but must be a number in [0, 1)"),
    ("dropout", math.nan, "--dropout is nan, but must be a number in [0, 1)"),
    ("embedding_dropout", 1.0, "--embedding-dropout is 1.0, but must be a number in [0, 1)"),
    ("weight_dropout", -0.1, "--weight-dropout is -0.1, but must be a number in [0, 1)"),
    ("ar", -1.0, "--ar is -1.0, but must be a finite number of at least 0"),
    ("tar", math.inf, "--tar is inf, but must be a finite number of at least 0"),
    ("encoding", "cp1252", "--encoding cp1252 needs --text FILE: the default text"),
    ("locked_dropout", True, "--locked-dropout needs --dropout above 0"),
    ("tied", True, "--tied needs --embedding equal to --hidden, but they are 64 and 256"),
    ("devices", -1, "--devices is -1, but must be a whole number from 0 to 2,147,483,647"),
    ("devices", 5, "--devices 5 does not divide --batch 32; these do: 1, 2, 4, 8, 16, 32"),
    ("seed", -1, "--seed is -1, but must be a whole number from 0 to 4,294,967,295"),
    ("seed", 2**32, "--seed is 4294967296, but must be a whole number from 0 to 4,294,967,295"),
    ("hidden", 10**9, "--hidden is 1000000000, but must be a whole number from 1 to 1,048,576"),
    ("hidden", 8.5, "--hidden is 8.5, but must be a whole number from 1 to 1,048,576"),
    ("batch", math.inf, "--batch is inf, but must be a whole number from 1 to 2,147,483,647"),
    ("layers", 101, "--layers is 101, but must be a whole number from 1 to 100"),
    ("steps", 2**31, "--steps is 2147483648, but must be a whole number from 1 to 2,147,483,647"),
    ("learning_rate", 1e39, "--learning-rate is 1e+39, which "),
    (
        "learning_rate",
        1e-50,
        "--learning-rate is 1e-50, but the smallest normal number in float32 is 1.2e-38",
    ),
    ("epochs", 0.0, "--epochs is 0.0, but must be a finite number above 0"),
    ("epochs", math.nan, "--epochs is nan, but must be a finite number above 0"),
    ("validation", 1, "--validation is 1, but must be a whole number from 2 to 2,147,483,647"),
    ("seed", HUGE, "--seed is an integer of 1329 bits, but must be a whole number from 0 to"),
]
COUNTS = ["embedding", "hidden", "layers", "batch", "window", "steps", "eval_every", "patience"]


def test_defaults_are_valid():
    TrainConfig().check()
    SampleConfig().check()


@pytest.mark.parametrize("name, value, message", BAD, ids=lambda x: str(x)[:20])
def test_train_config_rejects_invalid_value(name, value, message):
    with pytest.raises(OptionError) as error:
        replace(TrainConfig(), **{name: value}).check()
    assert message in str(error.value)


@pytest.mark.parametrize("value", [0, -3])
@pytest.mark.parametrize("name", COUNTS)
def test_train_config_rejects_nonpositive_counts(name, value):
    flag = "--" + name.replace("_", "-")
    with pytest.raises(
        OptionError, match=f"^{flag} is {value}, but must be a whole number from 1 to [\\d,]+$"
    ):
        replace(TrainConfig(), **{name: value}).check()


@pytest.mark.parametrize(
    "values",
    [
        dict(steps=1, warmup=0),
        dict(steps=2, warmup=1),
        dict(clip=0.0, clip_gates=0.0),
        dict(dropout=0.999),
        dict(dropout=0.1, locked_dropout=True),
        dict(weight_dropout=0.999, embedding_dropout=0.999, ar=0.0, tar=1e3, vary_window=True),
        dict(seed=2**32 - 1),
        dict(batch=6, devices=6),
        dict(embedding=7, hidden=7, tied=True),
        dict(optimizer="nadamw", weight_decay=0.0),
    ],
    ids=str,
)
def test_train_config_accepts_edge_values(values):
    replace(TrainConfig(), **values).check()


def test_decaying_optimizers_are_listed():
    """The step is the learning rate times the decay; Adafactor does not scale its decay."""
    decaying = []
    for name, factory in OPTIMIZERS.items():
        if "weight_decay" in inspect.signature(factory).parameters:
            decaying.append(name)
            tx, ones = factory(1e-3, weight_decay=0.1), {"w": jnp.ones((4, 4))}
            zeros = jax.tree.map(jnp.zeros_like, ones)
            step = tx.update(zeros, tx.init(ones), ones)[0]["w"]
            np.testing.assert_allclose(step, -1e-4, rtol=1e-3)
    assert tuple(decaying) == DECAYING_OPTIMIZERS


@pytest.mark.parametrize(
    "values, message",
    [
        (dict(prompt=""), "--prompt is empty: pass at least one character"),
        (dict(length=0), "--length is 0, but must be a whole number from 1 to 10,000,000"),
        (
            dict(temperature=-0.5),
            "--temperature is -0.5, but must be a finite number of at least 0",
        ),
        (
            dict(temperature=math.nan),
            "--temperature is nan, but must be a finite number of at least 0",
        ),
        (dict(seed=-1), "--seed is -1, but must be"),
        (dict(prompt="cat X"), "--prompt: the run's text does not contain ' ', 'X'; leave such"),
        (dict(prompt="\udcff"), r"not contain '\udcff'; leave"),  # invalid UTF-8 from a shell
        (dict(prompt="UVWXYZ"), "not contain 'U', 'V', 'W', 'X', 'Y', …; leave"),
    ],
    ids=str,
)
def test_sample_config_rejects_invalid_value(values, message):
    with pytest.raises(OptionError) as error:
        SampleConfig(**values).check(vocabulary="act")
    assert message in str(error.value)


def test_weight_decay_is_given_once():
    config = TrainConfig(optimizer="nadamw", weight_decay=0.1, set=("weight_decay=0.2",))
    with pytest.raises(
        OptionError, match="^--weight-decay 0.1 and --set weight_decay=0.2: pass only one$"
    ):
        config.check()
    replace(config, weight_decay=None).check()
    replace(config, set=("b1=0.5",)).check()


def test_sample_config_accepts_known_prompt():
    SampleConfig(prompt="cat", temperature=0.0, length=1).check(vocabulary="act")


def test_averaging_optimizers_rescale_or_are_rejected():
    """An averaging optimizer must scale its own rate, or is rejected."""
    params = LSTMParams(jnp.ones((1, 8)), jnp.ones((2, 8)), jnp.ones(8))
    averages = (AverageState, optax.contrib.ScheduleFreeState)
    averaging = {
        name
        for name, factory in OPTIMIZERS.items()
        if any(find_states(factory(0.1).init(params), kind) for kind in averages)
    }
    assert averaging == {*RESCALING_OPTIMIZERS, "optax.contrib.schedule_free_adamw"}


def test_steps_and_epochs_exclude_each_other():
    with pytest.raises(OptionError, match="^--steps is 3 and --epochs is 2.0: pass only one$"):
        TrainConfig(steps=3, epochs=2.0).check()
    TrainConfig(epochs=2.0, warmup=10_000).check()  # the number of steps is not known yet
