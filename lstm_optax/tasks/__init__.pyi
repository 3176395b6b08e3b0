from .characters import characters as characters
from .sequences import sequences as sequences
from .surfaces import surface as surface
from ._digits import digits as digits
from .forecasting import forecast as forecast
from .task import Task as Task
