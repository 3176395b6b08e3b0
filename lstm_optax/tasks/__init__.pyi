from ._digits import digits as digits
from .characters import characters as characters
from .forecasting import forecast as forecast
from .sequences import sequences as sequences
from .surfaces import surface as surface
from .task import Task as Task
