"""What a job holds while it trains."""

import chex
import jax
from flax import nnx

import lstm_optax as lo
from lstm_optax.runs import build
from lstm_optax.runs.corpus import corpus_of
from lstm_optax.runs.job import prepare


def test_model_of_job_has_no_arrays():
    config = lo.TrainConfig(hidden=8, embedding=4, batch=2, window=8, devices=1)
    job = prepare(config, corpus_of(config))
    graphdef, params = nnx.split(job.model)
    assert {type(leaf) for leaf in jax.tree.leaves(params)} == {jax.ShapeDtypeStruct}
    made = build.make_model(job.config, len(job.corpus.vocabulary))
    assert graphdef == nnx.graphdef(made)
    chex.assert_trees_all_equal(job.initial_state().params, nnx.split(made)[1])
