from ._read_params import SavedParams as SavedParams
from ._read_params import read_params as read_params
from .checkpoint import Checkpoints as Checkpoints
from .checkpoint_error import CheckpointError as CheckpointError
