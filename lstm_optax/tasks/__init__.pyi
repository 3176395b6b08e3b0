from ._digits import digits as digits
from .forecasting import forecast as forecast
from .task import Task as Task
