from .characters import characters as characters
from .sequences import sequences as sequences
from .surfaces import surface as surface
from .task import Task as Task
