"""Show the values of a failed assertion in the contracts, too."""

import pytest

MODULES = ("contracts", "derivatives", "inside_flax", "mapped_params", "motion", "properties")
pytest.register_assert_rewrite(*MODULES)
