from .characters import characters as characters
from .sequences import sequences as sequences
from .task import Task as Task
