from ._characters import characters as characters
from ._digits import digits as digits
from ._sequences import sequences as sequences
from .forecasting import forecast as forecast
from .surfaces import surface as surface
from .task import Task as Task
